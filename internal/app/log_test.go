package app

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"testing"

	"github.com/gatehouse-mcp/gatehouse/internal/seal"
	"github.com/gatehouse-mcp/gatehouse/internal/token"
)

// R1402: every kind of secret, thrown at every logger in every way, is not in
// what it writes; names and ids of the same things are.
func TestLoggersKeepSecrets(t *testing.T) {
	const jwt = "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJ1c3JfMSJ9.c2lnbmF0dXJlLWlzLWhlcmU"
	kinds := map[string]string{
		"access token": jwt, "JWT without signature": "eyJhbGciOiJub25lIn0.eyJzdWIiOiJ1c3JfMSJ9.",
		"API key": "sk_4f9Q2mXv81LkPqZ0aB3c", "machine key": "mk_4f9Q2mXv81LkPqZ0aB3c",
		"registration token": "reg-3f2504e0-4f89-41d3-9a0c-0305e82c3301", "setup code": "7Q2M-9KTB-4XWD",
	}
	for _, prefix := range []string{"rt_", "ses_", "code_", "lnk_", "cs_", "flow_"} {
		kinds[prefix] = token.NewSplit(prefix).Token
	}
	for format := range map[string]bool{"text": true, "json": true} {
		for name, secret := range kinds {
			var out bytes.Buffer
			log, _, _ := newLog(Config{LogFormat: format, LogLevel: "debug"}, &out)
			in := "x=" + secret + "&y"
			log.Info("message with "+in, "value", secret, "inside", in)
			log.With("with", secret).WithGroup("g").Warn("m", "err", errors.New("refused: "+in), slog.Group("deep", "v", in))
			log.Error("m", "any", struct{ V string }{secret}, "list", []string{secret}, "bytes", []byte(secret), "hidden", seal.Hide(secret), "url", strings.ReplaceAll(in, ".", "%2E"))
			_, hidden, found := strings.Cut(secret, ".")
			if strings.Contains(out.String(), secret) || found && len(hidden) > 8 && strings.Contains(out.String(), hidden) {
				t.Errorf("%s, %s: %s", format, name, &out)
			}
			if strings.Count(out.String(), "[sealed]") < 10 {
				t.Errorf("%s, %s: what was hidden is not told: %s", format, name, &out)
			}
		}
		var out bytes.Buffer
		log, _, _ := newLog(Config{LogFormat: format}, &out)
		names := []string{"rt_01ARZ3NDEKTSV4RRFFQ69G5FAV", "req_01ARZ3NDEKTSV4RRFFQ69G5FAV", "POST /mcp/tool/{name}", "member:usr_01ARZ3NDEKTSV4RRFFQ69G5FAV", "3f2504e0-4f89-41d3-9a0c-0305e82c3301", "203.0.113.0/24", "billing_task_list"}
		log.Info("names", "of", strings.Join(names, " "))
		for _, name := range names {
			if !strings.Contains(out.String(), name) {
				t.Errorf("%s: the name %s is gone: %s", format, name, &out)
			}
		}
	}
}

// log.level and log.format; text is for terminals.
func TestLogFormatAndLevel(t *testing.T) {
	for _, tt := range []struct {
		c    Config
		want string
	}{
		{Config{}, `"msg":"shown"`}, {Config{LogFormat: "json"}, `"msg":"shown"`}, {Config{LogFormat: "text"}, "msg=shown"},
		{Config{LogLevel: "error"}, ""}, {Config{LogLevel: "debug", LogFormat: "text"}, "msg=detail"},
	} {
		var out bytes.Buffer
		log, _, _ := newLog(tt.c, &out)
		log.Debug("detail")
		log.Warn("shown")
		if got := out.String(); !strings.Contains(got, tt.want) || tt.want == "" && got != "" {
			t.Errorf("%+v: %s", tt.c, got)
		}
	}
}
