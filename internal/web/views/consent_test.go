package views

import (
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"testing"
)

func consentHTML(t *testing.T, name string) string {
	t.Helper()
	for _, d := range drawings(t, "Claude Code") {
		if d.name == name {
			_, html := drawn(t, d)
			return html
		}
	}
	t.Fatalf("no drawing is called %s", name)
	return ""
}

// R1202: a name is a claim, so it is quoted; a host that was checked is the title.
func TestTitleIsWhatCanBeProven(t *testing.T) {
	for name, want := range map[string]string{
		"consent loopback": "An app calling itself “<bdi>Claude Code</bdi>” wants to use 2 servers as you",
		"consent app link": "An app calling itself “<bdi>Claude Code</bdi>” wants to use 2 servers as you",
		"consent web":      "An app at app.example.net wants to use Claude Code as you",
		"consent nothing":  "An app calling itself “<bdi>Claude Code</bdi>” wants to use Acme Tools as you",
	} {
		if html := consentHTML(t, name); !strings.Contains(html, want) {
			t.Errorf("%s: the title is not %s", name, want)
		}
	}
}

// R1204: a stray Enter takes the first button, so that one refuses, box or no box.
func TestRefusingComesFirst(t *testing.T) {
	html := consentHTML(t, "consent loopback")
	buttons := regexp.MustCompile(`<button[^>]*>([^<]*)<`).FindAllStringSubmatch(html, -1)
	if len(buttons) != 2 || buttons[0][1] != "Don’t allow" || buttons[1][1] != "Allow this app" {
		t.Fatalf("buttons are %q", buttons)
	}
	if !strings.Contains(buttons[0][0], "formnovalidate") || strings.Contains(buttons[1][0], "formnovalidate") {
		t.Error("refusing needs the box, or allowing does not")
	}
	if !regexp.MustCompile(`<h1[^>]* autofocus`).MatchString(html) || regexp.MustCompile(`<(button|input)[^>]* autofocus`).MatchString(html) {
		t.Error("the focus is not on the title")
	}
}

// R316: who listens on this computer cannot be proven, so the person confirms it.
func TestLocalAppsNeedTheBox(t *testing.T) {
	box := regexp.MustCompile(`<input type="checkbox" name="started" value="yes" required`)
	for name, want := range map[string]bool{"consent loopback": true, "consent app link": true, "consent web": false} {
		if box.MatchString(consentHTML(t, name)) != want {
			t.Errorf("%s: box wanted %v", name, want)
		}
	}
}

// R1203: from read to hard to undo; what nobody classified is hard to undo.
func TestLinesGoFromReadToHardToUndo(t *testing.T) {
	lines := []Line{{Text: "unclassified"}, {Text: "second", Risk: Read}, {Text: "third", Risk: Change}, {Text: "last", Risk: Read}}
	given := slices.Clone(lines)
	var order []string
	for _, l := range byRisk([]Server{{"x", lines}})[0].Lines {
		order = append(order, l.Text)
	}
	if want := []string{"second", "last", "third", "unclassified"}; !slices.Equal(order, want) {
		t.Errorf("order %q", order)
	}
	for i := range given {
		if lines[i].Text != given[i].Text {
			t.Error("the caller's slice was reordered")
		}
	}
}

func TestLongListsCollapse(t *testing.T) {
	nine := slices.Repeat([]Line{{Text: "x"}}, 9)
	tests := []struct {
		servers []Server
		want    bool
	}{
		{[]Server{{}, {}, {}}, false},
		{[]Server{{}, {}, {}, {}}, true},
		{[]Server{{"a", nine[:8]}}, false},
		{[]Server{{"a", nine}}, true},
	}
	for _, tt := range tests {
		if got := (ConsentView{Servers: tt.servers}).Collapsed(); got != tt.want {
			t.Errorf("%d servers, %d lines: collapsed %v", len(tt.servers), len(tt.servers[0].Lines), got)
		}
	}
	html := consentHTML(t, "consent many")
	for _, want := range []string{"<p>10 things: 4 read, 4 change, 2 hard to undo</p>", `<details class="server">`, "1 thing: 1 read"} {
		if !strings.Contains(html, want) {
			t.Errorf("the page lacks %s", want)
		}
	}
}

// Counts are what the list holds.
func TestTotalCountsToolsByRisk(t *testing.T) {
	s := Server{Lines: []Line{{Risk: Read, Tools: make([]Tool, 9)}, {Risk: Change, Tools: make([]Tool, 4)}, {}}}
	if got := s.Total(); got != "14 things: 9 read, 4 change, 1 hard to undo" {
		t.Error(got)
	}
	if s.Worst() != HardToUndo {
		t.Errorf("worst is %v", s.Worst())
	}
}

// A nameless app is called an app, never by empty quotes.
func TestNamelessAppIsNotQuoted(t *testing.T) {
	for _, uri := range []string{"http://127.0.0.1:1/", "https://a.example/"} {
		w := httptest.NewRecorder()
		if err := Consent(w, 200, ConsentView{Client: Client{Name: "\u200b \u202e", Target: target(t, uri)}}); err != nil {
			t.Fatal(err)
		}
		if strings.Contains(w.Body.String(), "“") {
			t.Errorf("%s: empty quotes", uri)
		}
	}
}
