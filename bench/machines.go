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

// token is one request for a token.
func (r robot) token(ctx context.Context, w *way) error {
	form := url.Values{"grant_type": {"client_credentials"}, "client_id": {r.ID}}
	if r.signer == nil {
		form.Set("client_secret", r.Secret)
	} else {
		proof, err := r.proof("http://" + w.host)
		if err != nil {
			return err
		}
		form.Set("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer")
		form.Set("client_assertion", proof)
	}
	var got tokens
	_, body, err := send(ctx, w.hc, "http://"+w.host+"/oauth/token", http.Header{"Content-Type": {"application/x-www-form-urlencoded"}}, form.Encode())
	if err := errors.Join(err, json.Unmarshal(body, &got)); err != nil || got.Access == "" {
		return errors.Join(fmt.Errorf("a service account was answered %s", body), err)
	}
	return nil
}

func (r robot) proof(issuer string) (string, error) {
	now := time.Now().Unix()
	claims, err := json.Marshal(map[string]any{"iss": r.ID, "sub": r.ID, "aud": issuer, "iat": now, "exp": now + 60, "jti": rand.Text()})
	if err != nil {
		return "", err
	}
	signed, err := r.signer.Sign(claims)
	if err != nil {
		return "", err
	}
	return signed.CompactSerialize()
}

// machines measures how many tokens service accounts get. Their keys sign in this
// process, on the same cores.
func (h *house) machines(ctx context.Context, engine string, desks []*desk, callers int) error {
	for i, operation := range []string{"client credentials, secret", "client credentials, key"} {
		var rows []*row
		of := map[*row]robot{}
		for _, d := range desks {
			if len(d.robots) > 0 {
				r := &row{tool: operation, workers: callers, way: d.way}
				rows, of[r] = append(rows, r), d.robots[i]
			}
		}
		if len(rows) == 0 {
			return nil
		}
		err := inTurn(rows, func(r *row) error {
			return r.drive(during(func(int) error { return of[r].token(ctx, r.way) }))
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
