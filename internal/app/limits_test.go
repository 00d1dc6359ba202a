package app_test

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/gatehouse-mcp/gatehouse/internal/app"
	"github.com/gatehouse-mcp/gatehouse/internal/app/apptest"
	"github.com/gatehouse-mcp/gatehouse/internal/problem"
)

// R418: a Valkey server that is away keeps nobody from starting and nobody out, and
// the log says that it is missed; an address that is none is refused at once.
func TestHouseWithoutItsValkey(t *testing.T) {
	t.Parallel()
	port := freePort(t)
	h := apptest.Start(t, apptest.Dev, func(c *app.Config) { c.Valkey = "valkey://:hunter2@localhost:" + port })
	h.Token("", "")
	if h.Log.Wait("counts of requests cannot be shared between nodes", nil) == "" || strings.Contains(h.Log.String(), "hunter2") {
		t.Errorf("the log:\n%s", h.Log)
	}
	dir := t.TempDir()
	c := app.Config{Listen: "localhost:0", DataDir: dir, Database: "sqlite:" + filepath.Join(dir, "x.db"), MasterKeyFile: filepath.Join(dir, "k"), Valkey: "localhost:" + port}
	if p := problem.From(app.Run(t.Context(), c, &apptest.Log{})); p == nil || !strings.Contains(p.Why, "limits.valkey: it is not an address") {
		t.Errorf("with an address that is none: %+v", p)
	}
	for file, says := range map[string]string{filepath.Join(dir, "nosuch"): "nosuch can't be read", "limits_test.go": "limits_test.go holds no certificate"} {
		c.Valkey, c.ValkeyCAFile = "rediss://localhost:"+port, file
		if p := problem.From(app.Run(t.Context(), c, &apptest.Log{})); p == nil || !strings.Contains(p.Why, "limits.valkey_ca_file: ") || !strings.Contains(p.Why, says) {
			t.Errorf("with %s as authorities: %+v", file, p)
		}
	}
}
