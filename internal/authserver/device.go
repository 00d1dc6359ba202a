package authserver

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/gatehouse-mcp/gatehouse/internal/authn"
	"github.com/gatehouse-mcp/gatehouse/internal/identity"
	"github.com/gatehouse-mcp/gatehouse/internal/oauth"
	"github.com/gatehouse-mcp/gatehouse/internal/problem"
	"github.com/gatehouse-mcp/gatehouse/internal/store"
	"github.com/gatehouse-mcp/gatehouse/internal/throttle"
	"github.com/gatehouse-mcp/gatehouse/internal/token"
)

const (
	// DeviceLife is how long a person has to type the code.
	DeviceLife = 15 * time.Minute

	pollPause    = 5 * time.Second // between two polls; after one that came too early, so much more
	maxPollPause = time.Minute
)

// DeviceRedirect stands where other flows have a redirect URI: nothing is sent there,
// the device fetches its tokens itself.
const DeviceRedirect = grantDevice

// codeLetters are those of a code that is typed: no vowels, so that it spells nothing,
// and none that is taken for another. Eight of them are 34 bits.
const (
	codeLetters = "BCDFGHJKLMNPQRSTVWXZ"
	codeLength  = 8
)

// device is the device authorization endpoint (RFC 8628 §3.1): a program that can open
// no browser gets a code for itself and one for the person.
func (s *Server) device(w http.ResponseWriter, r *http.Request, ref string) error {
	form, err := readForm(w, r)
	if err != nil {
		return err
	}
	shown, err := s.present(r, form)
	if err != nil {
		return err
	}
	if err := s.mayBegin(r, authn.Browser{}, shown.id); err != nil {
		return err
	}
	if err := s.introduced(r.Context(), throttle.Address(r.RemoteAddr), shown.id); err != nil {
		return err
	}
	var code token.Split
	var typed string
	err = s.DB.Do(r.Context(), func(tx *store.Tx) error {
		c, err := s.authenticate(tx, shown)
		if err != nil {
			return err
		}
		f := flow{Ref: ref, Client: c, Redirect: DeviceRedirect, From: host(r.RemoteAddr)}
		if fault := s.askForDevice(&f, form); fault != nil {
			return fault
		}
		code, typed, err = s.startDevice(tx, f, cleanName(r.UserAgent()))
		return err
	})
	if err != nil {
		return err
	}
	at := s.Issuer + "/device"
	reply(w, http.StatusOK, oauth.DeviceResponse{
		DeviceCode: code.Token, UserCode: typed, VerificationURI: at, VerificationURIComplete: at + "?" + url.Values{"user_code": {typed}}.Encode(),
		ExpiresIn: int64(DeviceLife / time.Second), Interval: int64(pollPause / time.Second),
	})
	return nil
}

func (s *Server) askForDevice(f *flow, form url.Values) *oauth.Error {
	scopes, fault := oauth.ParseScopes(form.Get("scope"))
	if fault != nil {
		return fault
	}
	for _, resource := range form["resource"] {
		if fault := oauth.CheckResource(resource); fault != nil {
			return fault
		}
	}
	return s.ask(f, oauth.AuthorizeRequest{Scopes: scopes, Resources: form["resource"]}, grantDevice)
}

// startDevice keeps what the device asks for. A code that another device was given is
// not given again while it is remembered.
func (s *Server) startDevice(tx *store.Tx, f flow, by string) (code token.Split, typed string, err error) {
	code = token.NewSplit("dev_")
	for won := false; !won && err == nil; {
		typed = newUserCode()
		var sealed []byte
		if sealed, err = s.Box.Seal(userCodes.Place(code.ID), []byte(typed)); err == nil {
			won, err = tx.One(`INSERT INTO device_code
				(id, hash, user_hash, user_code, client, scopes, resource, asked_from, asked_by, ref, pause, created_at, expires_at)
				VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13) ON CONFLICT (user_hash) DO NOTHING`,
				code.ID, code.Hash, userHash(typed), sealed, f.Client.ID, strings.Join(f.Scopes, " "), f.Audience.URL, f.From, by, f.Ref,
				pollPause.Microseconds(), tx.Now, tx.Now+DeviceLife.Microseconds())
		}
	}
	return code, typed, err
}

// newUserCode is one like WDJB-MJHT.
func newUserCode() string {
	var random [64]byte
	code := make([]byte, 0, codeLength+1)
	for len(code) <= codeLength {
		_, _ = rand.Read(random[:]) // never fails
		for _, b := range random {
			switch {
			case len(code) > codeLength || int(b) >= 256-256%len(codeLetters): // each letter is as likely as the others
				continue
			case len(code) == codeLength/2:
				code = append(code, '-')
			}
			code = append(code, codeLetters[int(b)%len(codeLetters)])
		}
	}
	return string(code)
}

// userHash is under what a code is found, however it was typed: case, blanks and
// dashes do not matter.
func userHash(typed string) []byte {
	letters := strings.Map(func(r rune) rune {
		if strings.ContainsRune(" -\u00a0\u2010\u2011\u2012\u2013\u2014", r) {
			return -1
		}
		return r
	}, strings.ToUpper(typed))
	sum := sha256.Sum256([]byte(letters))
	return sum[:]
}

// CodeAsk is the page on which a person types the code of a device.
type CodeAsk struct {
	FormToken string
	Code      string // from the link, or as typed before; it counts only when it is sent
	Fault     string // why the last one did not count
}

// typeCode shows the page. A code in the address fills the field and does nothing
// else (attack 121).
func (s *Server) typeCode(w http.ResponseWriter, r *http.Request, _ string) error {
	b, err := s.Authn.Browser(w, r)
	if err != nil {
		return err
	}
	code := r.URL.Query().Get("user_code")
	if len(code) > 2*codeLength || !oauth.Readable(code) {
		code = ""
	}
	return s.Pages.Device(w, r, CodeAsk{FormToken: b.FormToken(), Code: code})
}

// takeCode begins the authorization that a typed code is about, in the browser in
// which it was typed. Each try counts, right or wrong: so many cannot be tried at once.
func (s *Server) takeCode(w http.ResponseWriter, r *http.Request, _ string) error {
	b, err := s.form(w, r)
	if err != nil {
		return err
	}
	if err := s.Throttle.Take(Guesses, throttle.Address(r.RemoteAddr)); err != nil {
		return err
	}
	typed := r.PostForm.Get("user_code")
	f, found, err := s.typedDevice(r.Context(), typed)
	if err != nil {
		return err
	}
	if !found {
		s.refused(r, "unknown code of a device")
		if len(typed) > 2*codeLength {
			typed = ""
		}
		return s.Pages.Device(w, r, CodeAsk{
			FormToken: b.FormToken(), Code: typed, Fault: "There is no such code. Codes last 15 minutes; start again on the device for a new one.",
		})
	}
	return s.lead(w, r, b, f, oauth.AuthorizeRequest{})
}

// typedDevice is the authorization that a code is about, while nobody has decided.
func (s *Server) typedDevice(ctx context.Context, typed string) (f flow, found bool, err error) {
	err = s.DB.View(ctx, func(tx *store.Tx) error {
		d, err := loadDevice(tx, "user_hash", userHash(typed))
		if err != nil || d == nil || !d.waits(tx.Now) {
			return err
		}
		f = flow{Ref: d.ref, Redirect: DeviceRedirect, Device: d.id, Scopes: d.scopes, From: d.from}
		if f.Client, found, err = s.client(tx, d.family.Client); err != nil || !found {
			return err
		}
		f.Audience, found = s.Registry.AudienceAt(s.Public, d.family.Resource)
		return nil
	})
	return f, found, err
}

// A Device waits for a person, who compares the code that it shows.
type Device struct {
	Code string
	By   string // program that asked, as it calls itself; may be empty
}

var deviceGone = problem.Code{
	Name: "DEVICE_CODE_GONE", Kind: problem.Forbidden,
	Why: "somebody has answered already, or it took longer than 15 minutes",
	Fix: "look at the device; if it still waits, start again there",
}

// showDevice adds to the question what the person has to compare.
func (s *Server) showDevice(tx *store.Tx, f flow, ask *Ask) error {
	d, err := loadDevice(tx, "id", f.Device)
	if err != nil {
		return err
	}
	if d == nil || !d.waits(tx.Now) {
		return deviceGone.New("this code is not waited for any more")
	}
	code, err := s.Box.Open(userCodes.Place(d.id), d.sealed)
	ask.Device, ask.Asked = &Device{Code: string(code), By: d.by}, time.UnixMicro(d.created)
	return err
}

// answerDevice notes what the person decided; one answer counts. Without a consent it
// is no.
func answerDevice(tx *store.Tx, f flow, m identity.Member, consent string, scopes []string) error {
	won, err := tx.One(`UPDATE device_code SET decided_at = $1, workspace = $2, user_id = $3, consent = $4, granted = $5, family = $6, expires_at = $7
		WHERE id = $8 AND decided_at IS NULL AND expires_at > $1`,
		tx.Now, m.Workspace, m.ID, consent, strings.Join(scopes, " "), token.NewFamilyID(), max(f.Expires, tx.Now+CodeLife.Microseconds()), f.Device)
	if err == nil && !won {
		err = errDecided
	}
	return err
}
