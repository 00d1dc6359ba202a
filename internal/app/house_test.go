package app

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/gatehouse-mcp/gatehouse/internal/gate"
	"github.com/gatehouse-mcp/gatehouse/internal/identity"
	"github.com/gatehouse-mcp/gatehouse/internal/mcp"
	"github.com/gatehouse-mcp/gatehouse/internal/principal"
	"github.com/gatehouse-mcp/gatehouse/internal/problem"
	"github.com/gatehouse-mcp/gatehouse/internal/tool"
)

var update = flag.Bool("update", false, "write the golden files")

// golden compares text with a file that reviewers read. -update writes it.
func golden(t *testing.T, name, text string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if string(want) == text {
		return
	}
	got, lines := strings.Split(text, "\n"), strings.Split(string(want), "\n")
	for i := range min(len(got), len(lines)) {
		if got[i] != lines[i] {
			t.Fatalf("%s:%d: a promise changed. Was:\n%s\nis:\n%s\nIf it was meant to, run: go test ./internal/app -update", path, i+1, lines[i], got[i])
		}
	}
	t.Fatalf("%s: a promise changed: %d lines, now %d. If it was meant to, run: go test ./internal/app -update", path, len(lines), len(got))
}

// furnished are the rooms of a house whose doors are closed.
func furnished(t *testing.T) *house {
	t.Helper()
	h := furnishIn(t, t.TempDir())
	t.Cleanup(func() { h.leave(t) })
	return h
}

func furnishIn(t *testing.T, dir string) *house {
	t.Helper()
	h, err := furnish(t.Context(), Config{
		PublicURL: "http://localhost:3000", Database: "sqlite:" + filepath.Join(dir, "test.db"), MasterKeyFile: filepath.Join(dir, "master.key"),
	}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func (h *house) leave(t *testing.T) {
	t.Helper()
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	h.servers.Run(ended) // closes the connections
	if err := h.db.Close(); err != nil {
		t.Error(err)
	}
}

// addFixture puts a server with a tool of every effect behind the house.
func (h *house) addFixture(t *testing.T) {
	t.Helper()
	up := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		m, fault := mcp.Parse(body)
		results := map[string]string{
			"initialize": `{"protocolVersion":"2025-11-25","capabilities":{"tools":{}},"serverInfo":{"name":"fixture","version":"1"}}`,
			"tools/list": `{"tools":[{"name":"read","inputSchema":{"type":"object"},"annotations":{"readOnlyHint":true}},
				{"name":"write","inputSchema":{"type":"object"},"annotations":{"destructiveHint":false}},
				{"name":"destroy","inputSchema":{"type":"object"}}]}`,
			"tools/call": `{"content":[]}`,
		}
		if fault != nil || !m.IsRequest() {
			w.WriteHeader(http.StatusAccepted)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(mcp.Message{ID: m.ID, Result: json.RawMessage(results[m.Method])}.Encode())
	}))
	t.Cleanup(up.Close)
	owner, _ := localOwner(nil)
	if _, err := h.do(owner, "add_server", `{"name":"fixture","url":"`+up.URL+`"}`); err != nil {
		t.Fatal(err)
	}
}

func (h *house) do(p principal.Principal, name, args string) (json.RawMessage, error) {
	return h.gate.Do(context.Background(), gate.Call{Principal: p, Name: name, Args: json.RawMessage(args), Door: "test"})
}

// What tools promise and demand is a visible diff (R701, R705, R721).
func TestDeclarations(t *testing.T) {
	var b strings.Builder
	for _, d := range furnished(t).registry.All() {
		fmt.Fprintf(&b, "%s\n  origin  %s\n  effect  %s\n  caller  %s\n  scope   %s\n  direct  %v\n  ",
			d.FullName(), cmp.Or(d.Origin, "(base)"), d.Effect, d.MayCall(), cmp.Or(d.Scope, "(none)"), d.Direct)
		var text bytes.Buffer
		if err := json.Indent(&text, d.Definition, "  ", "  "); err != nil {
			t.Errorf("%s: %v", d.Name, err)
		}
		b.WriteString(text.String() + "\n\n")
	}
	golden(t, "tools.golden", b.String())
}

// Whoever reviews the rights reads this file: who may call what, and if not, why
// (R508–R510, R704). What is listed can be called, and nothing else.
func TestWhoMayCallWhat(t *testing.T) {
	t.Parallel()
	h := furnished(t)
	h.addFixture(t)
	var b strings.Builder
	for _, who := range principals() {
		p := who.principal
		listed := map[string]bool{}
		for _, d := range h.gate.List(context.Background(), p) {
			listed[d.FullName()] = true
		}
		answers := map[string][]string{}
		for _, d := range h.registry.All() {
			answer := h.answer(p, d)
			answers[answer] = append(answers[answer], d.FullName())
			if listed[d.FullName()] != (answer == "allowed") {
				t.Errorf("%s: %s is listed: %v, but a call is: %s", who.name, d.FullName(), listed[d.FullName()], answer)
			}
		}
		fmt.Fprintf(&b, "%s\n", who.name)
		for _, answer := range []string{"allowed", "SIGN_IN_NEEDED", "RANK_TOO_LOW", "TOOL_NOT_ALLOWED", "SCOPE_REQUIRED", "DIRECT_ONLY"} {
			if tools := answers[answer]; tools != nil {
				fmt.Fprintf(&b, "  %-16s  %s\n", answer, strings.Join(tools, " "))
			}
		}
		b.WriteString("\n")
	}
	golden(t, "matrix.golden", b.String())
}

// refusals are the gate's own; with any other answer the call got through.
var refusals = []string{"SIGN_IN_NEEDED", "TOOL_UNKNOWN", "RANK_TOO_LOW", "TOOL_NOT_ALLOWED", "SCOPE_REQUIRED", "DIRECT_ONLY"}

func (h *house) answer(p principal.Principal, d tool.Tool) string {
	args := map[string]string{"add_server": `{"name":"NOT A NAME"}`, "remove_server": `{"name":"none"}`, "echo": `{"message":"hi"}`}[d.Name]
	_, err := h.do(p, d.FullName(), args)
	if e := problem.From(err); e != nil && slices.Contains(refusals, e.Name) {
		return e.Name
	}
	return "allowed"
}

type who struct {
	name      string
	principal principal.Principal
}

func principals() []who {
	owner, _ := localOwner(nil)
	all := []who{{"nobody", principal.Principal{}}, {"whoever opens the admin socket", owner}}
	for _, rank := range []principal.Rank{principal.Unset, principal.Readonly, principal.Standard, principal.Admin, principal.Owner} {
		for _, scopes := range []string{"", "mcp:read", "mcp:tools", "mcp:admin", "fixture:read", "fixture:write", "fixture:admin", "other:admin", "servers:read audit:read", "servers:admin"} {
			for _, client := range []string{"", "app"} {
				if scopes != "mcp:admin" && (client == "" || rank == principal.Unset) {
					continue // a person acting directly has every scope; without a rank no scope helps
				}
				how := "through an app"
				if client == "" {
					how = "directly"
				}
				p := principal.Principal{
					Kind: principal.Member, Workspace: identity.Workspace, User: "usr_dana", Client: client, Rank: rank, Scopes: strings.Fields(scopes),
				}
				all = append(all, who{fmt.Sprintf("%s · %s · %s", rank, how, strings.Join(append(p.Scopes, "no scope")[:max(1, len(p.Scopes))], " ")), p})
			}
		}
	}
	for _, scopes := range []string{"fixture:read", "mcp:admin"} {
		all = append(all, who{"service account with fixture_read, fixture_destroy and remove_app on its list · " + scopes, principal.Principal{
			Kind: principal.ServiceAccount, Workspace: identity.Workspace, User: "svc_01", Client: "svc_01", Rank: principal.Admin,
			Scopes: strings.Fields(scopes), Tools: []string{"fixture_read", "fixture_destroy", "remove_app"},
		}})
	}
	return all
}
