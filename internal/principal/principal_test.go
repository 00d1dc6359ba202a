package principal

import "testing"

// R509: one place decides what a scope includes.
func TestCovers(t *testing.T) {
	tests := []struct {
		granted, needed string
		want            bool
	}{
		{"billing:read", "billing:read", true},
		{"billing:write", "billing:read", true},
		{"billing:admin", "billing:read", true},
		{"billing:admin", "billing:write", true},
		{"mcp:read", "billing:read", true},
		{"mcp:tools", "billing:read", true},
		{"mcp:tools", "billing:write", true},
		{"mcp:admin", "billing:admin", true},
		{"mcp:admin", "passports:issue", true},
		{"passports:issue", "passports:issue", true},

		{"billing:read", "billing:write", false},
		{"billing:write", "billing:admin", false},
		{"billing:admin", "bill:read", false},
		{"bill:admin", "billing:read", false},
		{"mcp:read", "billing:write", false},
		{"mcp:tools", "billing:admin", false},
		{"mcp:tools", "passports:issue", false},
		{"billing:read", "mcp:read", false},
		{"billing:admin", "billing:", false},
		{"billing:bogus", "billing:read", false},
		{"", "", false},
		{"mcp:admin", "", false},
		{"mcp", "mcp:read", false},
		{"billing", "billing:read", false},
	}
	for _, tt := range tests {
		if got := Covers(tt.granted, tt.needed); got != tt.want {
			t.Errorf("Covers(%q, %q) = %v, want %v", tt.granted, tt.needed, got, tt.want)
		}
	}
}

func TestZeroPrincipalIsNobody(t *testing.T) {
	var p Principal
	if p.Has("mcp:read") || p.Direct() || p.Rank != Unset || p.Name() != "anonymous" {
		t.Errorf("the zero principal may do something: %+v", p)
	}
}

// R620: who is meant is evident from the id, and never found out by trying.
func TestKindOfASubject(t *testing.T) {
	for id, want := range map[string]string{
		"svc_01K": "service:svc_01K", "usr_svc_01K": "member:usr_svc_01K", "local": "member:local", "svc": "member:svc", "": "anonymous",
	} {
		if got := NameOf(id); got != want {
			t.Errorf("NameOf(%q) = %q, want %q", id, got, want)
		}
	}
	if p := (Principal{Kind: ServiceAccount, User: "svc_01K"}); p.Direct() || p.Name() != NameOf(p.User) {
		t.Errorf("a service account is a person acting directly, or called %q", p.Name())
	}
}
