package views

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"net/http"
	"path"
	"strings"
)

//go:embed assets
var assetFiles embed.FS

// assets maps the address of each file to its content. The address holds a hash
// of the content, so browsers may keep what they have for ever.
var assets, addresses = load()

func load() (map[string][]byte, map[string]string) {
	files, err := assetFiles.ReadDir("assets")
	if err != nil {
		panic(err)
	}
	contents, addresses := map[string][]byte{}, map[string]string{}
	for _, f := range files {
		content, err := assetFiles.ReadFile("assets/" + f.Name())
		if err != nil {
			panic(err)
		}
		sum := sha256.Sum256(content)
		base, ext, _ := strings.Cut(f.Name(), ".")
		address := "/assets/" + base + "." + hex.EncodeToString(sum[:6]) + "." + ext
		contents[address], addresses[f.Name()] = content, address
	}
	return contents, addresses
}

// asset is the address of the file name; a name that does not exist fails the
// page.
func asset(name string) (string, error) {
	if address, ok := addresses[name]; ok {
		return address, nil
	}
	return "", fmt.Errorf("no asset is called %q", name)
}

var assetTypes = map[string]string{".css": "text/css; charset=utf-8", ".svg": "image/svg+xml"}

// Assets serves what pages need under /assets/. Addresses of another build are
// not found.
func Assets() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		content, ok := assets[r.URL.Path]
		if !ok {
			http.NotFound(w, r)
			return
		}
		h := w.Header()
		h.Set("Content-Type", assetTypes[path.Ext(r.URL.Path)])
		h.Set("Cache-Control", "public, max-age=31536000, immutable")
		h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
		h.Set("X-Content-Type-Options", "nosniff")
		_, _ = w.Write(content)
	})
}
