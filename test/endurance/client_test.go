package endurance

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/gatehouse-mcp/gatehouse/internal/mcp"
)

// hc is what all clients share. It has no deadline of its own.
var hc = &http.Client{
	Transport:     &http.Transport{MaxIdleConnsPerHost: 64},
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
}

// answer is what came back; status 0 means that nothing did.
type answer struct {
	status int
	header http.Header
	text   string
	err    error
}

func (a answer) String() string { return fmt.Sprintf("%d %.300s %v", a.status, a.text, a.err) }

// lost reports that the server went away, or said that it cannot now.
func (a answer) lost() bool { return a.err != nil || a.status == http.StatusServiceUnavailable }

// send posts and reads the whole answer.
func send(ctx context.Context, address, kind, body string, header ...string) answer {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, address, strings.NewReader(body))
	if err != nil {
		return answer{err: err}
	}
	r.Header.Set("Content-Type", kind)
	for i := 0; i+1 < len(header); i += 2 {
		if header[i+1] != "" {
			r.Header.Set(header[i], header[i+1])
		}
	}
	resp, err := hc.Do(r)
	if err != nil {
		return answer{err: err}
	}
	text, err := io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	return answer{resp.StatusCode, resp.Header, string(text), err}
}

// refresh redeems a refresh token.
func refresh(ctx context.Context, base, client, token string) answer {
	return send(ctx, base+"/oauth/token", "application/x-www-form-urlencoded", url.Values{
		"grant_type": {"refresh_token"}, "client_id": {client}, "refresh_token": {token},
	}.Encode())
}

// revoke revokes a token.
func revoke(ctx context.Context, base, client, token string) answer {
	return send(ctx, base+"/oauth/revoke", "application/x-www-form-urlencoded", url.Values{"client_id": {client}, "token": {token}}.Encode())
}

// rpc sends one request of MCP.
func rpc(ctx context.Context, endpoint, token, session, method, params string) answer {
	return send(ctx, endpoint, "application/json", `{"jsonrpc":"2.0","id":1,"method":"`+method+`","params":`+params+`}`,
		"Accept", "application/json, text/event-stream", "Authorization", "Bearer "+token, mcp.SessionHeader, session)
}

// call calls a tool.
func call(ctx context.Context, endpoint, token, session, name, args string) answer {
	return rpc(ctx, endpoint, token, session, "tools/call", `{"name":"`+name+`","arguments":`+args+`}`)
}

// listen opens the stream of a new session and returns when it ended, once it
// did. It is open when listen returns.
func listen(ctx context.Context, endpoint, token string) (ended <-chan time.Time, err error) {
	session := rpc(ctx, endpoint, token, "", "initialize", initialize).header.Get(mcp.SessionHeader)
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, endpoint, nil)
	if err != nil {
		return nil, err
	}
	r.Header.Set("Accept", "text/event-stream")
	r.Header.Set("Authorization", "Bearer "+token)
	r.Header.Set(mcp.SessionHeader, session)
	resp, err := hc.Do(r)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		_ = resp.Body.Close()
		return nil, fmt.Errorf("listening was answered %s", resp.Status)
	}
	end := make(chan time.Time, 1)
	go func() {
		_, _ = io.Copy(io.Discard, resp.Body) // how it ends does not matter
		_ = resp.Body.Close()
		end <- time.Now()
	}()
	return end, nil
}

const initialize = `{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"endurance","version":"1"}}`

// jti is the id of an access token.
func jti(access string) string {
	var claims struct {
		ID string `json:"jti"`
	}
	if parts := strings.Split(access, "."); len(parts) == 3 {
		text, _ := base64.RawURLEncoding.DecodeString(parts[1])
		_ = json.Unmarshal(text, &claims) // what is no token has no id
	}
	return claims.ID
}
