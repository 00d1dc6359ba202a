package mail

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
)

// R632: where no mail server is set, the operator reads the mail in the log, with
// the link on a line of its own.
func TestMailIsPrinted(t *testing.T) {
	var out bytes.Buffer
	p := &Printer{Out: &out}
	if err := p.Send(Message{To: "dana@acme.example", Subject: "Your sign-in link", Text: "Open this link:\nhttp://localhost:3000/login/link?token=t\n"}); err != nil {
		t.Fatal(err)
	}
	want := "\nMail to dana@acme.example: Your sign-in link\n  Open this link:\n  http://localhost:3000/login/link?token=t\n\n"
	if out.String() != want {
		t.Errorf("printed %q, want %q", out.String(), want)
	}
}

// pieces is a writer that notes each write.
type pieces struct {
	mu  sync.Mutex
	all []string
}

func (p *pieces) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.all = append(p.all, string(b))
	return len(b), nil
}

// Mails that are sent at once do not mix with each other or with log lines.
func TestMailIsOnePiece(t *testing.T) {
	out := &pieces{}
	p := &Printer{Out: out}
	var sending sync.WaitGroup
	for i := range 20 {
		sending.Go(func() {
			if err := p.Send(Message{To: fmt.Sprint(i), Subject: "s", Text: "one\ntwo"}); err != nil {
				t.Error(err)
			}
		})
	}
	sending.Wait()
	if len(out.all) != 20 {
		t.Fatalf("%d pieces", len(out.all))
	}
	for _, piece := range out.all {
		if !strings.HasPrefix(piece, "\nMail to ") || !strings.HasSuffix(piece, "\n  one\n  two\n\n") {
			t.Errorf("%q", piece)
		}
	}
}

type broken struct{}

var errFull = errors.New("disk full")

func (broken) Write([]byte) (int, error) { return 0, errFull }

func TestSenderHearsThatNothingWasPrinted(t *testing.T) {
	if err := (&Printer{Out: broken{}}).Send(Message{To: "a", Text: "b"}); !errors.Is(err, errFull) {
		t.Errorf("%v", err)
	}
}
