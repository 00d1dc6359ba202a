package views

import (
	"net/http"
	"time"
)

// ConnectView is the page from which a person goes to a service, to connect an
// account there.
type ConnectView struct {
	Page
	User  string
	Name  string // of the service here
	At    string // its host
	URL   string
	Waits bool // does an app wait?
	App   string

	Request string // single-use handle of what can go on without the account; empty where nothing can
	CSRF    string
}

// Connect draws a link to the service, to which nothing is sent but what its address
// says, and where something can go on without the account a form that posts request and
// csrf to /connect/NAME/without.
func Connect(w http.ResponseWriter, status int, v ConnectView) error {
	return render(w, status, "connect", inFlow, v)
}

// Connection is an account of the reader's at a service.
type Connection struct {
	ID        string // of what it granted; empty where none is connected
	Name      string
	State     string // connected, lost, or empty: none
	Reason    string // why it is lost
	Scopes    []string
	Connected time.Duration // ago
	Used      time.Duration // ago; zero: never
	Servers   []string      // that use it
}

// ConnectionsView is the reader's accounts at services.
type ConnectionsView struct {
	Page
	CSRF        string
	User        string
	Done        string
	Connections []Connection
}

// Connections draws forms that post csrf and the name to /me/connections/remove.
func Connections(w http.ResponseWriter, status int, v ConnectionsView) error {
	return render(w, status, "connections", outside, v)
}
