package apptest

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/gatehouse-mcp/gatehouse/internal/app"
	"github.com/gatehouse-mcp/gatehouse/internal/mcp"
)

// Program is one that has started gatehouse stdio beside a house, and speaks to it.
type Program struct {
	Log   *Log             // what it hears on stderr
	Heard chan mcp.Message // what it hears that is not yet taken

	h      *House
	in     *io.PipeWriter
	kill   context.CancelFunc
	ended  chan error
	lastID int
}

// Stdio starts a program whose process has a token, or with "" none.
func (h *House) Stdio(token string) *Program {
	h.t.Helper()
	return h.StdioAs(func(string) (string, string, error) { return token, "", nil })
}

// StdioAs starts one whose process asks for its credential, see app.Streams.
func (h *House) StdioAs(credential func(refused string) (token, key string, err error)) *Program {
	h.t.Helper()
	c := h.config
	c.PublicURL = h.URL
	in, inside := io.Pipe()
	outside, out := io.Pipe()
	ctx, kill := context.WithCancel(context.Background())
	p := &Program{Log: &Log{}, Heard: make(chan mcp.Message, 1024), h: h, in: inside, kill: kill, ended: make(chan error, 1)}
	go func() {
		err := app.Stdio(ctx, c, app.Streams{In: in, Out: out, Log: p.Log, Credential: func(_ context.Context, server, refused string) (string, string, error) {
			return credential(refused)
		}})
		_ = out.Close()
		p.ended <- err
	}()
	go p.listen(outside)
	h.t.Cleanup(func() {
		kill()
		_ = inside.Close()
		if h.t.Failed() {
			h.t.Logf("the process printed:\n%s", p.Log)
		}
	})
	return p
}

// listen takes what the process writes. Whatever is no message fails the test (R712).
func (p *Program) listen(out io.Reader) {
	defer close(p.Heard)
	lines := bufio.NewReader(out)
	for {
		line, err := lines.ReadBytes('\n')
		if len(line) > 0 {
			m, fault := mcp.Parse(line)
			if fault != nil {
				p.h.t.Errorf("no message on stdout: %q", line)
			}
			p.Heard <- m
		}
		if err != nil {
			return
		}
	}
}

// Say writes text as it is.
func (p *Program) Say(text string) {
	p.h.t.Helper()
	if _, err := io.WriteString(p.in, text); err != nil {
		p.h.t.Errorf("the process does not read: %v", err)
	}
}

// Hear is the next message.
func (p *Program) Hear() mcp.Message {
	p.h.t.Helper()
	select {
	case m, more := <-p.Heard:
		if !more {
			p.h.t.Fatal("the process has ended")
		}
		return m
	case <-time.After(20 * time.Second):
		p.h.t.Fatal("the process says nothing")
	}
	return mcp.Message{}
}

// Begin sends a request and returns its id.
func (p *Program) Begin(method, params string) string {
	p.h.t.Helper()
	if params == "" {
		params = "{}"
	}
	p.lastID++
	id := strconv.Itoa(p.lastID)
	p.Say(`{"jsonrpc":"2.0","id":` + id + `,"method":"` + method + `","params":` + params + "}\n")
	return id
}

// RPC sends a request and returns its answer. What else is heard meanwhile is lost.
func (p *Program) RPC(method, params string) mcp.Message {
	p.h.t.Helper()
	id := p.Begin(method, params)
	for {
		if m := p.Hear(); m.IsResponse() && string(m.ID) == id {
			return m
		}
	}
}

// Tool calls a tool with JSON arguments.
func (p *Program) Tool(name, args string) mcp.Message {
	p.h.t.Helper()
	return p.RPC("tools/call", `{"name":"`+name+`","arguments":`+args+`}`)
}

// Initialize begins a session, with what the program can be asked for.
func (p *Program) Initialize(capabilities string) mcp.Message {
	p.h.t.Helper()
	m := p.RPC("initialize", `{"protocolVersion":"2025-11-25","capabilities":`+capabilities+`,"clientInfo":{"name":"test","version":"1"}}`)
	p.Say(`{"jsonrpc":"2.0","method":"notifications/initialized"}` + "\n")
	return m
}

// Hang closes the input of the process, as a program does that is done with it.
func (p *Program) Hang() { _ = p.in.Close() }

// Kill tells the process to end.
func (p *Program) Kill() { p.kill() }

// Ended waits for the end of the process, for as long as it may take.
func (p *Program) Ended(atMost time.Duration) error {
	p.h.t.Helper()
	select {
	case err := <-p.ended:
		return err
	case <-time.After(atMost):
		p.h.t.Fatalf("the process has not ended within %v", atMost)
	}
	return nil
}

// Fault is what an answer is refused with: the code, of the error or of the tool
// error; "" if it is neither.
func Fault(m mcp.Message) string {
	if m.Error != nil {
		return mcp.Text(m.Error.Data, "code")
	}
	if string(mcp.Field(m.Result, "isError")) == "true" {
		return mcp.Text(m.Result, "structuredContent", "code")
	}
	return ""
}

// Names are those of an answer to tools/list.
func Names(m mcp.Message) string {
	var list struct{ Tools []struct{ Name string } }
	_ = json.Unmarshal(m.Result, &list) // an error has none
	var names []string
	for _, t := range list.Tools {
		names = append(names, t.Name)
	}
	return strings.Join(names, " ")
}
