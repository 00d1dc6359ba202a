package problem

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

var teapot = Code{Name: "TEAPOT", Kind: Conflict, Why: "it is a teapot", Fix: "ask a coffee pot"}

// The table of the design: what a kind is on REST and at the command line.
func TestKinds(t *testing.T) {
	for _, tt := range []struct {
		kind   Kind
		name   string
		status int
		exit   int
	}{
		{Internal, "internal", http.StatusInternalServerError, 1},
		{Invalid, "invalid", http.StatusBadRequest, 2},
		{Unauthenticated, "unauthenticated", http.StatusUnauthorized, 3},
		{Forbidden, "forbidden", http.StatusForbidden, 6},
		{NotFound, "not_found", http.StatusNotFound, 5},
		{Conflict, "conflict", http.StatusConflict, 1},
		{Limited, "limited", http.StatusTooManyRequests, 1},
		{Held, "held", http.StatusAccepted, 7},
		{Unavailable, "unavailable", http.StatusServiceUnavailable, 4},
	} {
		if tt.kind.String() != tt.name || tt.kind.Status() != tt.status || tt.kind.Exit() != tt.exit {
			t.Errorf("%v: %d, %d", tt.kind, tt.kind.Status(), tt.kind.Exit())
		}
	}
	if len(kinds) != 9 {
		t.Errorf("there are %d kinds", len(kinds))
	}
}

// An error that nobody classified shows nothing of itself.
func TestUnclassifiedErrorIsInternal(t *testing.T) {
	cause := fmt.Errorf("dial 10.0.0.7: password hunter2: %w", io.EOF)
	e := From(cause)
	wire, err := json.Marshal(e.Wire("req_1"))
	if err != nil || e.Name != "INTERNAL" || e.Kind != Internal || strings.Contains(string(wire), "hunter2") || !strings.Contains(string(wire), "req_1") {
		t.Errorf("%s, %v", wire, err)
	}
	if !strings.Contains(e.Error(), "hunter2") || !errors.Is(e, io.EOF) {
		t.Errorf("the log does not see the cause: %v", e)
	}
	if From(nil) != nil {
		t.Error("no error became one")
	}
	if (&Error{}).Kind != Internal {
		t.Error("the zero kind is not the one that reveals nothing")
	}
}

func TestProblemIsFoundInAChain(t *testing.T) {
	e := teapot.New("%d cups", 2)
	chain := fmt.Errorf("brew: %w", errors.Join(io.EOF, e))
	if From(chain) != e || !Is(chain, teapot) || Is(chain, internalCode) || Is(io.EOF, teapot) || Is(nil, teapot) {
		t.Error("it is not found")
	}
	if !Is(From(io.EOF), internalCode) {
		t.Error("an unclassified error has no code")
	}
}

// What one error adds is not what the next one says.
func TestErrorsOfACodeAreSeparate(t *testing.T) {
	first := teapot.New("no tea").WithWhy("%s is empty", "the pot").WithFix("fill %s", "it")
	if first.Why != "the pot is empty" || first.Fix != "fill it" {
		t.Errorf("%+v", first)
	}
	if again := teapot.New("no tea"); again.Why != "it is a teapot" || again.Fix != "ask a coffee pot" || teapot.Why != "it is a teapot" {
		t.Errorf("%+v", again)
	}
}

func TestErrorIsForTheLogAndWireForTheCaller(t *testing.T) {
	e := teapot.New("no coffee").Because(io.ErrUnexpectedEOF)
	e.Scope, e.Link, e.Retry = "pots:write", "https://example.org", 1500*time.Millisecond
	if e.Error() != "TEAPOT: no coffee: unexpected EOF" || !errors.Is(e, io.ErrUnexpectedEOF) {
		t.Errorf("%v", e)
	}
	want := Wire{
		Code: "TEAPOT", Message: "no coffee", Why: "it is a teapot", Fix: "ask a coffee pot", Scope: "pots:write",
		Link: "https://example.org", Retry: 2, Ref: "req_1", Status: http.StatusConflict,
	}
	if got := e.Wire("req_1"); got != want {
		t.Errorf("%+v", got)
	}
	bare, err := json.Marshal(Code{Name: "BARE"}.New("no").Wire(""))
	if err != nil || string(bare) != `{"code":"BARE","message":"no","status":500}` {
		t.Errorf("%s, %v", bare, err)
	}
	if got := (Code{Name: "BARE"}).New("no").Error(); got != "BARE: no" {
		t.Errorf("%s", got)
	}
}

// Whole seconds, and never too few: who comes back in time is not refused again.
func TestRetryIsRoundedUp(t *testing.T) {
	for wait, want := range map[time.Duration]int{0: 0, 1: 1, time.Second: 1, time.Second + 1: 2, time.Minute: 60} {
		e := teapot.New("later")
		e.Retry = wait
		if got := e.Wire("").Retry; got != want {
			t.Errorf("%v: %d s", wait, got)
		}
	}
}
