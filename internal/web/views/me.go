package views

import (
	"net/http"
	"time"
)

// App is an app that can act for the reader.
type App struct {
	ID        string
	Client    Client
	Can       []Can
	Allowed   time.Duration // ago
	Seen      time.Duration // ago; zero: never
	Left      time.Duration // until it ends although it is used; zero: it stays until it is removed
	SignedOut bool          // it holds no access now, and would get it again without asking
	Replayed  time.Duration // ago, when a sign-in of it was ended because it was used twice; zero: never
}

// Can is what an app can do at one server, from read to hard to undo.
type Can struct {
	Server string
	Risks  []Risk
}

// EndedApp is one that cannot act any more.
type EndedApp struct {
	Name   string
	Ended  time.Duration // ago
	Reason string
}

// MeView is the reader's own page: everything that can act for them.
type MeView struct {
	Page
	CSRF  string
	User  string
	Admin bool   // the reader decides about the server
	Done  string // what was just done, as a sentence; empty if nothing
	Apps  []App
	Ended []EndedApp // within the last 90 days

	Accounts bool // are there services at which people have accounts?
}

// Me draws forms that post csrf, with the id of an app to /me/remove and alone to
// /me/sign-out.
func Me(w http.ResponseWriter, status int, v MeView) error {
	return render(w, status, "me", outside, v)
}

// StopView is the question before everything is stopped.
type StopView struct {
	Page
	CSRF string
	User string
	Apps []App
}

// Stop draws the form that posts csrf to /me/stop.
func Stop(w http.ResponseWriter, status int, v StopView) error {
	return render(w, status, "stop", outside, v)
}
