package app

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// writes is a file that counts how often it is written.
type writes struct {
	mu sync.Mutex
	bytes.Buffer
	times int
}

func (w *writes) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.times++
	return w.Buffer.Write(b)
}

func (w *writes) now() (times, lines int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.times, strings.Count(w.String(), "\n")
}

// R1311: the lines of many requests are one write, none is lost, and none waits for
// longer than a moment, whatever comes after it.
func TestLinesOfTheLogShareAWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out writes
		log, _, run := newLog(Config{LogFormat: "json"}, &out)
		log.Info("before the server runs")
		if times, lines := out.now(); times != 1 || lines != 1 {
			t.Errorf("before: %d writes, %d lines", times, lines)
		}
		ctx, end := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { run(ctx) })
		synctest.Wait()
		for i := range 100 {
			log.Info("request", "n", i)
		}
		if times, lines := out.now(); times != 1 || lines != 1 {
			t.Errorf("at once: %d writes, %d lines", times, lines)
		}
		time.Sleep(linesWait + time.Millisecond)
		if times, lines := out.now(); times != 2 || lines != 101 {
			t.Errorf("a moment later: %d writes, %d lines", times, lines)
		}
		log.Info("request")
		log.Warn("something is wrong")
		if times, lines := out.now(); times != 3 || lines != 103 {
			t.Errorf("a warning: %d writes, %d lines", times, lines)
		}
		log.With("a", 1).WithGroup("g").Error("so is this")
		if _, lines := out.now(); lines != 104 {
			t.Errorf("an error of somebody's own logger: %d lines", lines)
		}
		log.Info(strings.Repeat("x", linesMost))
		if _, lines := out.now(); lines != 105 {
			t.Errorf("a long one waits: %d lines", lines)
		}
		log.Info("last")
		end()
		running.Wait()
		log.Info("after the end")
		if _, lines := out.now(); lines != 107 {
			t.Errorf("at the end: %d lines", lines)
		}
		if last := strings.Split(strings.TrimSpace(out.String()), "\n")[106]; !strings.Contains(last, "after the end") {
			t.Error(last)
		}
	})
}

// Many write at once, and each line stays whole.
func TestLinesOfTheLogStayWhole(t *testing.T) {
	var out writes
	log, _, run := newLog(Config{LogFormat: "json"}, &out)
	ctx, end := context.WithCancel(t.Context())
	var running, writing sync.WaitGroup
	running.Go(func() { run(ctx) })
	for w := range 8 {
		writing.Go(func() {
			for i := range 500 {
				level := slog.LevelInfo
				if i%50 == 0 {
					level = slog.LevelWarn
				}
				log.Log(ctx, level, "request", "who", fmt.Sprintf("%d-%d", w, i))
			}
		})
	}
	writing.Wait()
	end()
	running.Wait()
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	for _, line := range lines {
		if !strings.HasPrefix(line, `{"time"`) || !strings.HasSuffix(line, "}") {
			t.Fatalf("%q", line)
		}
	}
	if len(lines) != 8*500 {
		t.Errorf("%d lines", len(lines))
	}
}
