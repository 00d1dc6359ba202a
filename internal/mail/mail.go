// Package mail sends mail, or prints it where no mail server is set (R632).
//
// Nothing here is retried or kept: a message that could not be handed over is an
// error of the one who sent it.
package mail

import (
	"fmt"
	"io"
	"strings"
	"sync"
)

// Message is a mail in plain text.
type Message struct {
	To      string
	Subject string
	Text    string
}

// Printer prints messages where the operator reads the log.
type Printer struct {
	Out io.Writer
	mu  sync.Mutex
}

// Send prints the message in one piece.
func (p *Printer) Send(m Message) error {
	text := strings.ReplaceAll(strings.TrimSpace(m.Text), "\n", "\n  ")
	p.mu.Lock()
	defer p.mu.Unlock()
	_, err := fmt.Fprintf(p.Out, "\nMail to %s: %s\n  %s\n\n", m.To, m.Subject, text)
	return err
}
