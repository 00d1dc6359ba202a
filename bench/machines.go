package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// A robot is a service account, which gets its tokens for itself.
type robot struct {
	ID     string      `json:"client_id"`
	Secret string      `json:"client_secret"`
	signer jose.Signer // in place of the secret
}

// robots makes a service account with a secret and one that signs. A build from
// before there were any has none.
func (h *house) robots(ctx context.Context, program, data string) ([]robot, error) {
	if exec.CommandContext(ctx, program, "service-accounts", "create", "--help").Run() != nil {
		return nil, nil
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	set, err := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: key.Public(), KeyID: "bench"}}})
	file := filepath.Join(h.dir, "keys.json")
	if err := errors.Join(err, os.WriteFile(file, set, 0o600)); err != nil {
		return nil, err
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: jose.JSONWebKey{Key: key, KeyID: "bench"}}, nil)
	if err != nil {
		return nil, err
	}
	robots := []robot{{}, {signer: signer}}
	for i, how := range [][]string{{"secret"}, {"key", "--jwks", file}} {
		args := append([]string{"service-accounts", "create", "-o", "json", "--data-dir", data, "--tool", "echo"}, how...)
		out, err := exec.CommandContext(ctx, program, args...).Output()
		if err := errors.Join(err, json.Unmarshal(out, &robots[i])); err != nil {
			return nil, fmt.Errorf("making a service account: %w: %s", err, out)
		}
	}
	return robots, nil
}

// token is one request for a token. With bind the token is bound to a key, of which
// the request proves that the robot has it (RFC 9449).
func (r robot) token(ctx context.Context, w *way, bind jose.Signer) (access string, err error) {
	form, header := url.Values{"grant_type": {"client_credentials"}, "client_id": {r.ID}}, http.Header{}
	if r.signer == nil {
		form.Set("client_secret", r.Secret)
	} else {
		now := time.Now().Unix()
		claims := map[string]any{"iss": r.ID, "sub": r.ID, "aud": "http://" + w.host, "iat": now, "exp": now + 60, "jti": rand.Text()}
		if form["client_assertion"], err = signed(r.signer, claims); err != nil {
			return "", err
		}
		form.Set("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer")
	}
	if bind != nil {
		claims := map[string]any{"htm": "POST", "htu": "http://" + w.host + "/oauth/token", "iat": time.Now().Unix(), "jti": rand.Text()}
		if header["Dpop"], err = signed(bind, claims); err != nil {
			return "", err
		}
	}
	var got tokens
	body, err := w.form(ctx, "/oauth/token", header, form)
	if err := errors.Join(err, json.Unmarshal(body, &got)); err != nil || got.Access == "" {
		return "", errors.Join(fmt.Errorf("a service account was answered %s", body), err)
	}
	return got.Access, nil
}

// introspect asks what a token of the robot is worth (RFC 7662).
func (r robot) introspect(ctx context.Context, w *way, token string) error {
	body, err := w.form(ctx, "/oauth/introspect", http.Header{}, url.Values{"client_id": {r.ID}, "client_secret": {r.Secret}, "token": {token}})
	var about struct {
		Active bool `json:"active"`
	}
	if err := errors.Join(err, json.Unmarshal(body, &about)); err != nil || !about.Active {
		return errors.Join(fmt.Errorf("a good token was described as %s", body), err)
	}
	return nil
}

func (w *way) form(ctx context.Context, path string, header http.Header, values url.Values) ([]byte, error) {
	header.Set("Content-Type", "application/x-www-form-urlencoded")
	_, body, err := send(ctx, w.hc, "http://"+w.host+path, header, values.Encode())
	return body, err
}

func signed(signer jose.Signer, claims map[string]any) ([]string, error) {
	text, err := json.Marshal(claims)
	if err != nil {
		return nil, err
	}
	object, err := signer.Sign(text)
	if err != nil {
		return nil, err
	}
	compact, err := object.CompactSerialize()
	return []string{compact}, err
}

// machines measures how many tokens service accounts get, and how often they can ask
// about one. Their keys sign in this process, on the same cores.
func (h *house) machines(ctx context.Context, engine string, desks []*desk, callers int) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	bind, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: key}, (&jose.SignerOptions{EmbedJWK: true}).WithType("dpop+jwt"))
	if err != nil {
		return err
	}
	get := func(robot int, bind jose.Signer) func(*desk) (func(int) error, error) {
		return func(d *desk) (func(int) error, error) {
			return func(int) error { _, err := d.robots[robot].token(ctx, d.way, bind); return err }, nil
		}
	}
	ask := func(d *desk) (func(int) error, error) {
		token, err := d.robots[0].token(ctx, d.way, nil)
		return func(int) error { return d.robots[0].introspect(ctx, d.way, token) }, err
	}
	for _, o := range []struct {
		name string
		do   func(*desk) (func(int) error, error)
	}{
		{"client credentials, secret", get(0, nil)},
		{"client credentials, key", get(1, nil)},
		{"client credentials, secret, bound (DPoP)", get(0, bind)},
		{"introspection", ask},
	} {
		var rows []*row
		of := map[*row]*desk{}
		for _, d := range desks {
			if len(d.robots) > 0 {
				r := &row{tool: o.name, workers: callers, way: d.way}
				rows, of[r] = append(rows, r), d
			}
		}
		if len(rows) == 0 {
			return nil
		}
		err := inTurn(rows, func(r *row) error {
			do, err := o.do(of[r])
			if err != nil {
				return err
			}
			return r.drive(during(do))
		})
		if err != nil {
			return err
		}
		printed(engine, rows)
	}
	return nil
}

// printed prints the rows of one operation, of which the first is the build to
// compare with.
func printed(engine string, rows []*row) {
	for k, r := range rows {
		r.sort()
		kept := "–"
		if k > 0 {
			kept = fmt.Sprintf("%.2f", median(r.rates)/median(rows[0].rates))
		}
		fmt.Printf("| %s | %s | %d | %s | %.0f | %s | %s |\n", engine, r.tool, r.workers, r.way.name, median(r.rates), kept, r.cost())
	}
}
