package client

import (
	"encoding/base64"
	"errors"
	"net/http"
	"testing"
)

// What a program shows a server that it reaches without HTTP: the token of the stored
// sign-in, with the key that it is bound to, renewed when it does not do; or the one
// it was given.
func TestCredential(t *testing.T) {
	b := newBinding(t)
	c := signedIn(t, b.fake)
	none := New(Options{Credentials: t.TempDir() + "/none.json"})
	if found, err := none.Credential(t.Context(), b.server(), ""); found != (Credential{}) || err != nil {
		t.Errorf("before a sign-in: %+v, %v", found, err)
	}
	first, err := c.Credential(t.Context(), b.server(), "")
	sum, _ := base64.RawURLEncoding.DecodeString(first.Key)
	if err != nil || first.Token == "" || !b.keys[string(sum)] || len(b.keys) != 1 {
		t.Errorf("%+v, %v; the issuer saw the keys %v", first, err, b.keys)
	}
	again, err := c.Credential(t.Context(), b.server(), "")
	if err != nil || again != first {
		t.Errorf("again: %+v, %v", again, err)
	}
	other, err := c.Credential(t.Context(), b.server(), first.Token)
	if err != nil || other.Token == first.Token || other.Key != first.Key {
		t.Errorf("when it did not do: %+v, %v", other, err)
	}
	given := New(Options{Token: "given", Credentials: c.file()})
	if found, err := given.Credential(t.Context(), b.server(), "given"); found != (Credential{Token: "given"}) || err != nil {
		t.Errorf("given: %+v, %v", found, err)
	}
	b.override["/token"] = func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, http.StatusBadRequest, map[string]string{"error": "invalid_grant"})
	}
	if found, err := c.Credential(t.Context(), b.server(), other.Token); found.Token != "" || !errors.Is(err, ErrAuthentication) {
		t.Errorf("signed out: %+v, %v", found, err)
	}
	if found, err := c.Credential(t.Context(), b.server(), ""); found != (Credential{}) || err != nil {
		t.Errorf("after that: %+v, %v", found, err)
	}
}
