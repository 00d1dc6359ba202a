package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gatehouse-mcp/gatehouse/client"
	"github.com/gatehouse-mcp/gatehouse/internal/problem"
)

// A server's question is answered line by line: by type, by choice, by what is
// preset; what does not fit is asked again.
func TestQuestionInTheTerminal(t *testing.T) {
	const form = `{"type":"object","required":["age","colour"],"properties":{
		"age":{"type":"integer"},"colour":{"type":"string","enum":["red","blue"]},"name":{"type":"string","default":"Ann","description":"who \u001b[31mit is"},"note":{"type":"string"},"sure":{"type":"boolean"}}}`
	tests := []struct {
		name, typed string
		q           client.Question
		action      client.Action
		content     string
	}{
		{"all typed", "\nsoon\n\n7\ngreen\nred\nBob\n\ntrue\n", client.Question{Schema: json.RawMessage(form)}, client.Accept, `{"age":7,"colour":"red","name":"Bob","sure":true}`},
		{"presets", "y\n7\nblue\n\n\n\n", client.Question{Schema: json.RawMessage(form)}, client.Accept, `{"age":7,"colour":"blue"}`},
		{"no", "n\n", client.Question{Schema: json.RawMessage(form)}, client.Decline, "null"},
		{"page", "y\n", client.Question{URL: "javascript:nothing"}, client.Accept, "null"},
		{"page, Enter", "\n", client.Question{URL: "javascript:nothing"}, client.Decline, "null"},
	}
	for _, tt := range tests {
		var said bytes.Buffer
		c := &cli{in: strings.NewReader(tt.typed), err: &said}
		tt.q.Server, tt.q.Message = "https://gw.example/mcp", "which\x1b[2J?"
		r, err := c.answer(t.Context(), tt.q)
		content, _ := json.Marshal(r.Content)
		if err != nil || r.Action != tt.action || string(content) != tt.content {
			t.Errorf("%s: %s %s, %v", tt.name, r.Action, content, err)
		}
		if strings.Contains(said.String(), "\x1b") || !strings.HasPrefix(said.String(), "https://gw.example/mcp asks:\n") {
			t.Errorf("%s: said %q", tt.name, said.String())
		}
	}
	c := &cli{in: strings.NewReader("y\n"), err: io.Discard} // and then nothing more
	if r, err := c.answer(t.Context(), client.Question{Schema: json.RawMessage(form)}); err == nil || r.Action == client.Accept {
		t.Errorf("%+v, %v", r, err)
	}
}

// R906: no is no, and whoever stops waiting is not held.
func TestDeclinedSignIn(t *testing.T) {
	c := &cli{in: strings.NewReader("no\n"), err: io.Discard}
	err := c.signIn(t.Context(), c.client(), client.Demand{Server: "https://gw.example/mcp", Scope: "a"})
	if e, ok := errors.AsType[*problem.Error](err); !ok || e.Code.Name != "SIGN_IN_DECLINED" || e.Fix != "gatehouse login https://gw.example/mcp" {
		t.Errorf("%v", err)
	}
	ctx, stop := context.WithCancel(t.Context())
	stop()
	in, w := io.Pipe()
	defer w.Close()
	if err := (&cli{in: in, err: io.Discard}).signIn(ctx, nil, client.Demand{}); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	if (&cli{in: strings.NewReader(""), err: io.Discard}).interactive() {
		t.Error("a pipe is a person")
	}
}

// What an app proves itself with comes from files, in the forms that openssl
// writes; what is no key says so without showing it.
func TestReadApp(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	ec, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	rsaKey, _ := rsa.GenerateKey(rand.Reader, 2048)
	sec1, _ := x509.MarshalECPrivateKey(ec)
	pkcs8, _ := x509.MarshalPKCS8PrivateKey(ec)
	for kind, der := range map[string][]byte{"EC PRIVATE KEY": sec1, "PRIVATE KEY": pkcs8, "RSA PRIVATE KEY": x509.MarshalPKCS1PrivateKey(rsaKey)} {
		path := file("key", string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})))
		if a, err := readApp("app", "", path, "k1"); err != nil || a.Key == nil || a.KeyID != "k1" || a.ID != "app" {
			t.Errorf("%s: %+v, %v", kind, a, err)
		}
	}
	if a, err := readApp("app", file("secret", "s3cret\n"), "", ""); err != nil || a.Secret != "s3cret" {
		t.Errorf("%+v, %v", a, err)
	}
	public, _ := x509.MarshalPKIXPublicKey(ec.Public())
	for name, err := range map[string]error{
		"no app":     second(readApp("", "x", "", "")),
		"missing":    second(readApp("app", "", filepath.Join(dir, "missing"), "")),
		"empty":      second(readApp("app", file("empty", " \n"), "", "")),
		"no PEM":     second(readApp("app", "", file("text", "s3cret"), "")),
		"public key": second(readApp("app", "", file("pub", string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public}))), "")),
	} {
		if e, ok := errors.AsType[*problem.Error](err); !ok || e.Code.Kind != problem.Invalid || strings.Contains(e.Error()+e.Why, "s3cret") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func second(_ client.App, err error) error { return err }
