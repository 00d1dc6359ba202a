package views

import (
	"net/http"
	"time"

	"github.com/gatehouse-mcp/gatehouse/internal/problem"
)

// Client is an app. Its name is a claim; its target is where access would go.
type Client struct {
	Name     string // what it calls itself; may be empty
	Target   Target
	Document string // address of the document that describes it; empty if it registered
	Domain   string // host that the document came from
	Approved string // who vouches for the app; empty if nobody does
}

// SignInView is the page that asks for an e-mail address.
type SignInView struct {
	Page
	Flow    string  // single-use handle of what waits; empty for a plain sign-in
	CSRF    string  // token of the form
	Waiting *Client // the app that waits, if any
	Email   string  // as typed before
	Fault   string  // why the last try did not work, as a sentence
	Log     bool    // no mail server: links go to the server's log
}

// SignIn draws the form that posts flow, csrf and email to /login.
func SignIn(w http.ResponseWriter, status int, v SignInView) error {
	return render(w, status, "signin", inFlow, v)
}

// SignInSentView is shown to known and unknown addresses alike.
type SignInSentView struct {
	Page
	Email string
	Again string        // own path of the form that asks for an address
	Lasts time.Duration // of the link
	Log   bool          // no mail server: the link is in the server's log
}

// SignInSent says where the link is.
func SignInSent(w http.ResponseWriter, status int, v SignInSentView) error {
	return render(w, status, "signinsent", inFlow, v)
}

// SignInLinkView is what opening the link shows. Mail scanners open links, so
// nothing is used up before the button.
type SignInLinkView struct {
	Page
	Token   string // from the link
	CSRF    string
	Email   string // whom it signs in; may be empty
	Current string // who is signed in here now; empty if nobody
}

// SignInLink draws the button that posts token and csrf to /login/link.
func SignInLink(w http.ResponseWriter, status int, v SignInLinkView) error {
	return render(w, status, "signinlink", inFlow, v)
}

// SignedInView is the end of a sign-in that nothing waited for.
type SignedInView struct {
	Page
	Email string
}

// SignedIn says who is signed in.
func SignedIn(w http.ResponseWriter, status int, v SignedInView) error {
	return render(w, status, "signedin", inFlow, v)
}

// SetupView is the page that makes the first owner.
type SetupView struct {
	Page
	CSRF  string
	Email string // as typed before
	Fault string // why the last try did not work, as a sentence
}

// Setup draws the form that posts code, email and csrf to /setup.
func Setup(w http.ResponseWriter, status int, v SetupView) error {
	return render(w, status, "setup", outside, v)
}

// SetupDoneView is shown once, after setup, when the first sign-in link has been
// sent.
type SetupDoneView struct {
	Page
	Email    string
	Endpoint string // the MCP address to give to clients
	Log      bool   // no mail server: sign-in links go to the server's log
}

// SetupDone says what comes next.
func SetupDone(w http.ResponseWriter, status int, v SetupDoneView) error {
	return render(w, status, "setupdone", outside, v)
}

// HandBackView is the way back to the app. It goes only to the browser that
// asked: after Allow the target holds the code.
type HandBackView struct {
	Page
	Client  Client        // Target with the parameters of the answer
	Denied  bool          // the person did not allow it
	First   bool          // go at once; later views wait for the person
	Decided time.Duration // ago
	Left    time.Duration // until the code expires; zero means it has
}

// HandBack sends the browser on, or shows how to go on. It has to answer 200: a
// redirect after a form is blocked by the form's own policy.
func HandBack(w http.ResponseWriter, status int, v HandBackView) error {
	return render(w, status, "handback", handBack, v)
}

// TypeCodeView is the page on which a person types the code that a device shows.
type TypeCodeView struct {
	Page
	CSRF  string
	Code  string // from a link, or as typed before
	Fault string // why the last one did not work, as a sentence
}

// TypeCode draws the form that posts csrf and user_code to /device/code.
func TypeCode(w http.ResponseWriter, status int, v TypeCodeView) error {
	return render(w, status, "device", inFlow, v)
}

// DeviceDoneView is the end of an authorization that a device waits for.
type DeviceDoneView struct {
	Page
	Denied bool
}

// DeviceDone says that the person can go back to the device.
func DeviceDone(w http.ResponseWriter, status int, v DeviceDoneView) error {
	return render(w, status, "devicedone", inFlow, v)
}

// Endpoint is an address of this server that people copy.
type Endpoint struct{ Name, URL string }

// HomeView is the front page.
type HomeView struct {
	Page
	Endpoints []Endpoint
	Setup     bool   // nobody owns this server yet
	User      string // who is signed in; empty if nobody
	CSRF      string // token of the form that signs out; empty shows none
}

// Home says what this server is. Who is signed in can post csrf to /logout.
func Home(w http.ResponseWriter, status int, v HomeView) error {
	return render(w, status, "home", outside, v)
}

// ErrorView says what happened, why, and what to do.
type ErrorView struct {
	Page
	Title string   // what happened, as a sentence
	Why   string   // as sentences; may be empty
	Do    []string // steps, as sentences
	Code  string   // the rest stands under Details
}

// Error draws an error page (R320). It cannot fail: if its template does, the
// answer is one plain sentence.
func Error(w http.ResponseWriter, status int, v ErrorView) {
	if err := render(w, status, "error", inFlow, v); err != nil {
		w.Header().Set("Cache-Control", "no-store")
		http.Error(w, "Something went wrong. Try again later. Reference: "+v.Ref, http.StatusInternalServerError)
	}
}

// CodesView is the error reference.
type CodesView struct {
	Page
	Codes []problem.Code
}

// Codes lists what can go wrong.
func Codes(w http.ResponseWriter, status int, v CodesView) error {
	return render(w, status, "codes", inFlow, v)
}

// CodeView is one error of the reference.
type CodeView struct {
	Page
	Code problem.Code
}

// Code says what an error means and what to do about it.
func Code(w http.ResponseWriter, status int, v CodeView) error {
	return render(w, status, "code", inFlow, v)
}

// FromProblem is the page for a problem; its cause is not on it.
func FromProblem(p Page, e *problem.Error) ErrorView {
	v := ErrorView{Page: p, Title: sentence(e.Detail), Why: sentence(e.Why), Code: e.Name}
	if e.Fix != "" {
		v.Do = []string{sentence(e.Fix)}
	}
	return v
}
