package views

import (
	"net/http"
	"time"
)

// KnownClient is an app as administrators see it.
type KnownClient struct {
	ID       string
	Name     string // may be empty
	Kind     string // how it became known, in words
	Approved string // who vouches for it; empty if nobody does
	Domain   string // host that its description came from
	Blocked  bool
	Reason   string // it is blocked
	Places   []string
	People   int           // who allow it now
	Live     int           // how often it is signed in now
	Used     time.Duration // ago, when it last got a token; zero: never
	Created  time.Duration // ago
	From     string        // network that it registered from; empty if it did not

	// On its own page only.
	Redirects []string
	Fetched   time.Duration   // ago, when its description was last fetched; zero: it has none
	Changed   time.Duration   // ago, when what it says last changed; zero: never
	Changes   []ChangedMember // since it was approved, or else with its last change
	Metadata  string          // what it registered, as JSON
	Secret    bool            // it authenticates with one
	Fixed     bool            // it stands in the configuration file
}

// A ChangedMember is one member of what an app says of itself, with the values that are gone
// and those that are new.
type ChangedMember struct {
	Member         string
	Removed, Added []string
}

// A Filter is one choice of what a list shows.
type Filter struct {
	Name, Link string
	Here       bool
}

// ClientsView is the list of apps for administrators.
type ClientsView struct {
	Page
	CSRF     string
	User     string
	Done     string // what was just done, as a sentence; empty if nothing
	Fault    string // why the last form did not count, as a sentence
	Made     MadeSecret
	Filters  []Filter
	Clients  []KnownClient
	Next     string   // own path of the rest of the list; empty if this is all
	Policy   []string // how apps become known here, as sentences
	Given    Given    // what the form that did not count held
	Terminal string   // the same on the command line
}

// MadeSecret is what is shown once after a client was added or got a new secret.
type MadeSecret struct{ Name, ID, Secret string }

// Given is what was typed into the form for a new client.
type Given struct {
	Name, Redirects string
	Secret          bool
}

// Clients draws links to the filters and to /admin/client?id=, and the form that posts
// csrf, name, redirects (one a line) and secret=yes to /admin/clients/add.
func Clients(w http.ResponseWriter, status int, v ClientsView) error {
	return render(w, status, "clients", outside, v)
}

// ClientView is one app for administrators.
type ClientView struct {
	Page
	CSRF     string
	User     string
	Done     string
	Made     MadeSecret
	Known    KnownClient
	Terminal string
}

// ClientPage draws the forms that post csrf and id to /admin/clients/approve, block
// (with reason), unblock, secret and remove.
func ClientPage(w http.ResponseWriter, status int, v ClientView) error {
	return render(w, status, "client", outside, v)
}
