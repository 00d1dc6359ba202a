package views

import (
	"bytes"
	"fmt"
	"math"
	"net/http/httptest"
	"os"
	"regexp"
	"strings"
	"testing"
)

func TestAssetsAreKeptForEver(t *testing.T) {
	for name, address := range addresses {
		w := httptest.NewRecorder()
		Assets().ServeHTTP(w, httptest.NewRequest("GET", address, nil))
		file, err := os.ReadFile("assets/" + name)
		if err != nil {
			t.Fatal(err)
		}
		if w.Code != 200 || !bytes.Equal(w.Body.Bytes(), file) || !strings.Contains(w.Header().Get("Cache-Control"), "immutable") || w.Header().Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%s: %d %v", address, w.Code, w.Header())
		}
	}
}

func TestAddressesOfOtherBuildsAreNotFound(t *testing.T) {
	for _, path := range []string{"/assets/", "/assets/style.css", "/assets/style.000000000000.css", "/assets/../views.go"} {
		w := httptest.NewRecorder()
		Assets().ServeHTTP(w, httptest.NewRequest("GET", path, nil))
		if w.Code != 404 || strings.Contains(w.Header().Get("Cache-Control"), "immutable") {
			t.Errorf("%s: %d %v", path, w.Code, w.Header())
		}
	}
}

func TestPageNamesOnlyAssetsThatExist(t *testing.T) {
	if _, err := asset("gone.css"); err == nil {
		t.Error("an asset that does not exist has an address")
	}
	if css := assets[addresses["style.css"]]; len(css) > 8<<10 {
		t.Errorf("the style sheet has %d bytes", len(css))
	}
}

// WCAG 2.2 1.4.3 and 1.4.11: text has a contrast of 4.5, the edge of a control 3.
func TestTokensHaveContrast(t *testing.T) {
	css := string(assets[addresses["style.css"]])
	roots := regexp.MustCompile(`:root \{([^}]*)\}`).FindAllStringSubmatch(css, -1)
	if len(roots) != 2 {
		t.Fatalf("%d sets of tokens, not light and dark", len(roots))
	}
	pairs := []struct {
		fore, back string
		least      float64
	}{
		{"text", "bg", 4.5}, {"text", "surface", 4.5}, {"text", "sunken", 4.5}, {"text", "on-warn", 4.5},
		{"muted", "bg", 4.5}, {"muted", "surface", 4.5}, {"muted", "sunken", 4.5},
		{"accent", "bg", 4.5}, {"accent", "surface", 4.5}, {"accent", "on-warn", 4.5}, {"on-accent", "accent", 4.5},
		{"ok", "on-ok", 4.5}, {"warn", "on-warn", 4.5}, {"bad", "on-bad", 4.5}, {"on-bad", "bad", 4.5},
		{"control", "bg", 3}, {"control", "surface", 3},
	}
	for i, theme := range []string{"light", "dark"} {
		tokens := map[string]float64{}
		for _, m := range regexp.MustCompile(`--([a-z-]+): (#[0-9a-f]{6});`).FindAllStringSubmatch(roots[i][1], -1) {
			tokens[m[1]] = luminance(t, m[2])
		}
		for _, p := range pairs {
			a, b := tokens[p.fore], tokens[p.back]
			if got := (math.Max(a, b) + 0.05) / (math.Min(a, b) + 0.05); got < p.least {
				t.Errorf("%s: %s on %s has a contrast of %.1f, not %.1f", theme, p.fore, p.back, got, p.least)
			}
		}
	}
}

// luminance is WCAG's relative luminance of #rrggbb.
func luminance(t *testing.T, hex string) float64 {
	t.Helper()
	var rgb [3]uint8
	if _, err := fmt.Sscanf(hex, "#%02x%02x%02x", &rgb[0], &rgb[1], &rgb[2]); err != nil {
		t.Fatal(err)
	}
	sum := 0.0
	for i, weight := range []float64{0.2126, 0.7152, 0.0722} {
		c := float64(rgb[i]) / 255
		if c <= 0.04045 {
			c /= 12.92
		} else {
			c = math.Pow((c+0.055)/1.055, 2.4)
		}
		sum += weight * c
	}
	return sum
}
