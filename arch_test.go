// Package gatehouse_test holds the laws of the whole tree: who may import whom,
// what every package owes its reader, and what no file may contain. A message
// of these tests says what to do about it.
package gatehouse_test

import (
	"cmp"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"go/types"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
)

const module = "github.com/gatehouse-mcp/gatehouse"

// floors: a package imports only packages of lower floors, and of those only
// the ones named in its row; "all" stands for every lower one. Packages below
// internal/ go by their short name.
var floors = []struct {
	floor int
	name  string
	uses  string
}{
	{0, "problem", ""},
	{0, "principal", ""},
	{0, "seal", ""},
	{0, "oauth", ""},
	{0, "mcp", ""},
	{1, "store", ""},
	{1, "client", "mcp oauth"},
	{1, "doctor", "mcp oauth"},
	{1, "mail", ""},
	{1, "jwks", ""},
	{1, "outbound", ""},
	{2, "tool", ""},
	{2, "issuer", "jwks oauth seal"},
	{2, "outbound/outboundtest", "outbound"},
	{1, "oauth/oauthtest", ""},
	{2, "store/storetest", ""},
	{2, "request", ""},
	{2, "throttle", ""},
	{3, "audit", "seal"},
	{3, "token", "oauth seal"},
	{4, "identity", "audit jwks token"},
	{4, "gate", "audit"},
	{5, "authn", "audit identity issuer jwks mail oauth request seal token"},
	{5, "vault", "audit gate identity oauth seal token"},
	{7, "upstream", "mcp seal"},
	{7, "authserver", "audit authn gate identity issuer jwks mail oauth outbound request seal throttle token vault"},
	{7, "web/views", ""},
	{8, "mcpserver", "authn gate mcp oauth request seal throttle"},
	{8, "web", "authn authserver gate identity mcp oauth request throttle vault web/views"},
	{9, "app", "all"},
	{10, "app/apptest", "all"},
	{10, "cmd/gatehouse", "all"},
	{10, "bench", ""},
	{10, "test/conformance/client", "client"},
	{0, "examples/knowledge/qa", ""},
	{1, "examples/knowledge/kb", "examples/knowledge/qa"},
	{2, "examples/knowledge", "examples/knowledge/kb examples/knowledge/qa"},
}

// everyones may be used from every floor above their own.
var everyones = []string{"problem", "principal", "store", "tool"}

// modules are the ones we may import, each with its reason. One that is marked
// as for tests is imported by no other file.
var modules = map[string]struct {
	reason   string
	testOnly bool
}{
	"code.dny.dev/ssrf":                      {reason: "which addresses are public, kept up with the registries of IANA; judged when a socket is dialled"},
	"github.com/go-jose/go-jose/v4":          {reason: "JWS and JWK; parsing demands a list of algorithms"},
	"github.com/go-json-experiment/json":     {reason: "canonical JSON (RFC 8785) for the audit chain, in jsontext, and reading JSON strictly"},
	"github.com/google/jsonschema-go":        {reason: "schemas of tools from Go types, and validation by them"},
	"github.com/jackc/pgx/v5":                {reason: "PostgreSQL"},
	"github.com/modelcontextprotocol/go-sdk": {reason: "an MCP client and server that somebody else wrote, to test against and in examples", testOnly: true},
	"github.com/rogpeppe/go-internal":        {reason: "testscript: the user's terminal as test files", testOnly: true},
	"github.com/spf13/cobra":                 {reason: "commands, flags, completion"},
	"github.com/valkey-io/valkey-go":         {reason: "Valkey and Redis, where nodes share the counters of limits if the operator likes; it pipelines by itself"},
	"go.yaml.in/yaml/v3":                     {reason: "the configuration file, with the line of each fault"},
	"golang.org/x/sync":                      {reason: "one does what many wait for: singleflight"},
	"golang.org/x/oauth2":                    {reason: "OAuth client of providers: authorization code with PKCE, refresh, their ways to spell answers"},
	"golang.org/x/sys":                       {reason: "file locks"},
	"golang.org/x/term":                      {reason: "is this a terminal"},
	"modernc.org/sqlite":                     {reason: "SQLite without cgo"},
}

// acrossWorkspaces are the functions (package.Name) whose SQL touches rows that
// belong to a workspace without naming it, each with the reason why it may.
var acrossWorkspaces = map[string]string{
	"audit.inserts":             "its columns are computed from a table, the first of which is the workspace",
	"authn.session":             "the row is found by an unguessable id, and says which workspace the session is of",
	"authserver.introspector":   "the row is found by an id that its holder authenticates for, and says which workspace that one is of",
	"token.VerifyOpaque":        "the row is found by an unguessable id, and says which workspace the token is of",
	"token.RevokeClient":        "a client belongs to no workspace; what it was given is revoked in all of them",
	"token.RevokeFamily":        "the id of the family is unguessable and comes from a token or row that was already judged",
	"upstream.taken":            "names of servers are unique in the whole instance",
	"upstream.ids":              "a node keeps the connections to the servers of all workspaces",
	"upstream.read":             "the id comes from ids, and the row says whose server it is",
	"authn.Sweep":               "what has expired goes, whosever it was",
	"authserver.Sweep":          "what has expired goes, whosever it was",
	"authserver.walks":          "what nothing refers to any more goes, whosever it was",
	"vault.Sweep":               "what has expired goes, whosever it was",
	"vault.awaited":             "the row is found by an unguessable state, and says which workspace it is of",
	"token.Sweep":               "what has expired goes, whosever it was",
	"identity.ServiceClient":    "a service account says by its id who it is, and the row of which workspace",
	"authserver.startDevice":    "whose it is, is known once a person has typed its code",
	"authserver.forget":         "a client belongs to no workspace; what it was given goes with it in all of them",
	"authserver.cut":            "a client belongs to no workspace; what it was given ends in all of them",
	"token.Use":                 "a client belongs to no workspace; when it was used is asked for all of them",
	"authserver.somebodyAllows": "an app is known once anybody has allowed it, and nothing else is told",
}

func TestImportsGoDownward(t *testing.T) {
	floor, uses := map[string]int{}, map[string]string{}
	for _, f := range floors {
		floor[f.name], uses[f.name] = f.floor, f.uses
	}
	seen, used := map[string]bool{}, map[[2]string]bool{}
	for _, f := range tree() {
		if f.test {
			continue
		}
		seen[f.pkg] = true
		if _, ok := floor[f.pkg]; !ok {
			t.Errorf("%s: package %s stands on no floor; give it a row in floors (arch_test.go) and in doc/design.md", f.path, f.pkg)
			continue
		}
		for _, path := range imports(f.ast) {
			dep, ours := strings.CutPrefix(path, module+"/")
			dep = strings.TrimPrefix(dep, "internal/")
			used[[2]string{f.pkg, dep}] = true
			switch low, known := floor[dep]; {
			case !ours:
			case !known || low >= floor[f.pkg]:
				t.Errorf("%s imports %s, which does not stand below it; let app hand over a function instead, or leave an event in the log", f.path, dep)
			case uses[f.pkg] != "all" && !slices.Contains(everyones, dep) && !slices.Contains(strings.Fields(uses[f.pkg]), dep):
				t.Errorf("%s imports %s, which %s may not use; if it truly must, name it in the row of floors and in doc/design.md", f.path, dep, f.pkg)
			}
		}
	}
	for _, f := range floors {
		if !seen[f.name] {
			t.Errorf("floors has a row for %s, which does not exist; remove the row, packages come with their first feature", f.name)
		}
		for _, dep := range strings.Fields(f.uses) {
			if low, known := floor[dep]; dep != "all" && (!known || low >= f.floor) {
				t.Errorf("the row of %s names %s, which does not stand below it; correct the row", f.name, dep)
			} else if dep != "all" && !used[[2]string{f.name, dep}] {
				t.Errorf("the row of %s grants %s, which it does not import; remove it there and in doc/design.md", f.name, dep)
			}
		}
	}
}

// The design shows the same table, except what only serves tests and tools.
func TestDesignShowsTheFloors(t *testing.T) {
	design, err := os.ReadFile("doc/design.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range floors {
		if strings.HasSuffix(f.name, "test") || f.name == "cmd/gatehouse" || f.name == "bench" || strings.HasPrefix(f.name, "test/") || strings.HasPrefix(f.name, "examples/") {
			continue
		}
		row := regexp.MustCompile(fmt.Sprintf("(?m)^\\| %d \\| `%s` \\| .* \\| %s \\|$", f.floor, f.name, cmp.Or(f.uses, "–")))
		if !row.Match(design) {
			t.Errorf("doc/design.md §2 has no row for %s on floor %d using %q; correct it", f.name, f.floor, f.uses)
		}
	}
}

func TestEveryPackageSaysWhatItIsFor(t *testing.T) {
	said := map[string]bool{}
	for _, f := range tree() {
		if f.test {
			continue
		}
		doc := f.ast.Doc.Text()
		want := "Package " + f.ast.Name.Name + " "
		if f.ast.Name.Name == "main" {
			want = ""
		}
		said[f.pkg] = said[f.pkg] || doc != "" && strings.HasPrefix(doc, want)
		if doc != "" && !strings.HasPrefix(doc, want) {
			t.Errorf("%s: begin the package comment with %q and say what the package is for", f.path, want)
		}
		if slices.Contains([]string{"utils", "util", "common", "helpers", "shared"}, f.ast.Name.Name) {
			t.Errorf("%s: package %s could hold anything; name it after the one thing it does", f.path, f.ast.Name.Name)
		}
	}
	for pkg, ok := range said {
		if !ok {
			t.Errorf("package %s has no package comment; say what it is for and the law it keeps", pkg)
		}
	}
}

func TestModulesHaveReasons(t *testing.T) {
	used := map[string]bool{}
	for _, f := range tree() {
		for _, path := range imports(f.ast) {
			if path == module || strings.HasPrefix(path, module+"/") || !strings.Contains(strings.Split(path, "/")[0], ".") {
				continue
			}
			m := moduleOf(path)
			used[m] = true
			if m == "" {
				t.Errorf("%s imports %s, whose module is not listed; do without it, or add it to modules (arch_test.go) with its reason", f.path, path)
			} else if modules[m].testOnly && !f.test && !strings.HasSuffix(f.pkg, "test") && !strings.HasPrefix(f.pkg, "examples/") {
				t.Errorf("%s imports %s, which is for tests only", f.path, path)
			}
		}
	}
	for m := range modules {
		if !used[m] {
			t.Errorf("nothing imports %s any more; remove it from modules (arch_test.go) and run go mod tidy", m)
		}
	}
	for m, direct := range required(t) {
		if _, listed := modules[m]; direct && !listed {
			t.Errorf("go.mod requires %s, which is not listed; run go mod tidy, or add it to modules (arch_test.go) with its reason", m)
		} else if listed && !direct {
			t.Errorf("go.mod calls %s indirect, but we import it; run go mod tidy", m)
		}
	}
}

// Callers build on codes, so a code is written once and in one form.
func TestProblemCodesAreDeclaredOnce(t *testing.T) {
	upperSnake := regexp.MustCompile(`^[A-Z][A-Z0-9]*(_[A-Z0-9]+)*$`)
	where := map[string]string{}
	for _, f := range tree() {
		if f.test {
			continue
		}
		ast.Inspect(f.ast, func(n ast.Node) bool {
			lit, ok := n.(*ast.CompositeLit)
			if !ok || !isProblemCode(f, lit.Type) {
				return true
			}
			pos := fset.Position(lit.Pos()).String()
			name := nameField(lit)
			switch {
			case !upperSnake.MatchString(name):
				t.Errorf("%s: write the name of the code as a string in UPPER_SNAKE, not %q", pos, name)
			case where[name] != "":
				t.Errorf("%s: %s is declared at %s too; use that one, or find a name of its own", pos, name, where[name])
			}
			where[name] = pos
			return true
		})
	}
}

// The error reference is complete (ux.md §11): every code is in its package's
// list Codes and says what it is about, and the program collects every list.
func TestProblemCodesAreInTheReference(t *testing.T) {
	declared, listed, collected := map[string][]string{}, map[string]map[string]bool{}, map[string]bool{}
	for _, f := range tree() {
		if f.test {
			continue
		}
		for _, d := range f.ast.Decls {
			if names := declaresCode(f, d); len(names) > 0 {
				declared[f.pkg] = append(declared[f.pkg], names...)
			}
			if mentioned, ok := declaresCodes(d); ok {
				listed[f.pkg] = mentioned
			}
		}
		if f.pkg == "app" || f.pkg == "cmd/gatehouse" {
			ast.Inspect(f.ast, func(n ast.Node) bool {
				sel, ok := n.(*ast.SelectorExpr)
				if x, ok := identOf(sel, ok); ok && sel.Sel.Name == "Codes" {
					collected[x] = true
				}
				return true
			})
		}
	}
	for pkg, names := range declared {
		for _, name := range names {
			if !listed[pkg][name] {
				t.Errorf("package %s: the code %s is not in the list Codes; add it, or gatehouse help does not know it", pkg, name)
			}
		}
		if pkg != "cmd/gatehouse" && !collected[pkg] {
			t.Errorf("nothing collects %s.Codes; add it to Codes in internal/app/codes.go", pkg)
		}
	}
	if len(declared) < 10 {
		t.Errorf("codes were found in %d packages only; this test looks at the wrong thing", len(declared))
	}
}

// declaresCode are the names of the variables of a declaration that hold a code.
func declaresCode(f file, d ast.Decl) []string {
	var names []string
	g, ok := d.(*ast.GenDecl)
	for i := 0; ok && g.Tok == token.VAR && i < len(g.Specs); i++ {
		v := g.Specs[i].(*ast.ValueSpec)
		if strings.EqualFold(v.Names[0].Name, "codes") {
			continue
		}
		for j, value := range v.Values {
			ast.Inspect(value, func(n ast.Node) bool {
				lit, ok := n.(*ast.CompositeLit)
				if ok && isProblemCode(f, lit.Type) {
					names = append(names, v.Names[j].Name)
				}
				return true
			})
		}
	}
	return names
}

// declaresCodes reports whether a declaration is the list of codes, a variable or
// a function, and which names it mentions.
func declaresCodes(d ast.Decl) (mentioned map[string]bool, ok bool) {
	switch d := d.(type) {
	case *ast.FuncDecl:
		ok = d.Recv == nil && strings.EqualFold(d.Name.Name, "codes")
	case *ast.GenDecl:
		for _, s := range d.Specs {
			if v, isValue := s.(*ast.ValueSpec); isValue && d.Tok == token.VAR && strings.EqualFold(v.Names[0].Name, "codes") {
				ok = true
			}
		}
	}
	mentioned = map[string]bool{}
	ast.Inspect(d, func(n ast.Node) bool {
		if id, isIdent := n.(*ast.Ident); isIdent {
			mentioned[id.Name] = true
		}
		return true
	})
	return mentioned, ok
}

// credentials are what a function of the vault that others can call must not return.
// A string is none where it is listed with what it holds instead.
var credentials = []string{"string", "[]byte", "any", "seal.Secret", "*oauth2.Token", "*oauth2.Config", "oauth2.TokenSource"}

var noCredentials = map[string]string{
	"Link":        "where a person connects an account",
	"PublicToken": "a sealed handle, which only this server opens",
	"Account":     "the id of a grant, and when it was made",
}

// The vault shows no credential (R1008): none of its functions that others can call
// returns one, and none of the types that it returns has a field for one.
func TestVaultShowsNoCredential(t *testing.T) {
	structs := map[string]*ast.StructType{}
	var exported []*ast.FuncDecl
	for _, f := range tree() {
		if f.pkg != "vault" || f.test {
			continue
		}
		for _, d := range f.ast.Decls {
			switch d := d.(type) {
			case *ast.FuncDecl:
				if d.Name.IsExported() {
					exported = append(exported, d)
				}
			case *ast.GenDecl:
				for _, s := range d.Specs {
					if typ, ok := s.(*ast.TypeSpec); ok {
						structs[typ.Name.Name], _ = typ.Type.(*ast.StructType)
					}
				}
			}
		}
	}
	if len(exported) < 8 {
		t.Errorf("%d functions were found; this test looks at the wrong thing", len(exported))
	}
	excused := map[string]bool{}
	for _, fn := range exported {
		for i := 0; fn.Type.Results != nil && i < len(fn.Type.Results.List); i++ {
			result := fn.Type.Results.List[i].Type
			kind := types.ExprString(result)
			if slices.Contains(credentials, kind) {
				if excused[fn.Name.Name] = true; noCredentials[fn.Name.Name] == "" {
					t.Errorf("%s: %s returns a %s, which could be a credential; lend it to a request instead, or say in noCredentials what it is", fset.Position(fn.Pos()), fn.Name.Name, kind)
				}
			}
			if st := structs[strings.TrimLeft(kind, "*[]")]; st != nil {
				for _, field := range st.Fields.List {
					if kind := types.ExprString(field.Type); kind != "string" && slices.Contains(credentials, kind) {
						t.Errorf("%s: %s returns a field of type %s, which could be a credential", fset.Position(field.Pos()), fn.Name.Name, kind)
					}
				}
			}
		}
	}
	for name := range noCredentials {
		if !excused[name] {
			t.Errorf("noCredentials excuses %s, which does not need it; remove the line", name)
		}
	}
}

func TestNothingRunsByItself(t *testing.T) {
	for _, f := range tree() {
		for _, d := range f.ast.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok && fn.Recv == nil && fn.Name.Name == "init" {
				t.Errorf("%s: func init runs behind the reader's back; call it from where it is needed, or make it a table", fset.Position(fn.Pos()))
			}
		}
	}
}

// What a server says goes through its logger; only commands print.
func TestOnlyCommandsPrint(t *testing.T) {
	for _, f := range tree() {
		if f.test || strings.HasPrefix(f.pkg, "cmd/") || f.pkg == "bench" || strings.HasPrefix(f.pkg, "test/") || strings.HasPrefix(f.pkg, "examples/") {
			continue
		}
		if slices.Contains(imports(f.ast), "log") {
			t.Errorf("%s imports log; use the slog.Logger that was handed over", f.path)
		}
		ast.Inspect(f.ast, func(n ast.Node) bool {
			sel, ok := n.(*ast.SelectorExpr)
			if x, isIdent := identOf(sel, ok); isIdent && x == "fmt" && strings.HasPrefix(sel.Sel.Name, "Print") {
				t.Errorf("%s: fmt.%s writes to somebody's terminal; return the text, or log it", fset.Position(sel.Pos()), sel.Sel.Name)
			}
			return true
		})
	}
}

// A statement that forgets the workspace is how one tenant sees another (R520).
func TestStatementsNameTheWorkspace(t *testing.T) {
	tables := workspaceTables(t)
	statement := regexp.MustCompile(`\b(?:FROM|UPDATE|INTO|JOIN)\s+([a-z_]+)`)
	excused := map[string]bool{}
	for _, f := range tree() {
		if f.test {
			continue
		}
		for _, s := range sqlTexts(f) {
			for _, m := range statement.FindAllStringSubmatchIndex(s.text, -1) {
				table, rest := s.text[m[2]:m[3]], s.text[m[3]:]
				if !tables[table] || strings.Contains(rest, "workspace") {
					continue
				}
				if acrossWorkspaces[s.owner] != "" {
					excused[s.owner] = true
					continue
				}
				t.Errorf("%s: a statement on %s does not name the workspace; add it, or give %q a reason in acrossWorkspaces (arch_test.go)", fset.Position(s.pos), table, s.owner)
			}
		}
	}
	for owner := range acrossWorkspaces {
		if !excused[owner] {
			t.Errorf("acrossWorkspaces excuses %s, which no longer needs it; remove the line", owner)
		}
	}
}

// A file is one Go file of the tree. pkg is its folder, without internal/.
type file struct {
	path, pkg string
	test      bool
	ast       *ast.File
}

var fset = token.NewFileSet()

// tree parses every Go file, also those of other platforms. A file that does
// not parse ends the tests: nothing can be said about it.
var tree = sync.OnceValue(func() []file {
	var files []file
	walk(func(path string) {
		if !strings.HasSuffix(path, ".go") {
			return
		}
		f, err := parser.ParseFile(fset, path, nil, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			panic(err)
		}
		pkg := strings.TrimPrefix(filepath.ToSlash(filepath.Dir(path)), "internal/")
		files = append(files, file{path, pkg, strings.HasSuffix(path, "_test.go"), f})
	})
	return files
})

// walk visits what the go tool would look at.
func walk(visit func(path string)) {
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := d.Name()
		if d.IsDir() && path != "." && (name[0] == '.' || name[0] == '_' || name == "testdata" || name == "node_modules") {
			return filepath.SkipDir
		}
		if !d.IsDir() {
			visit(path)
		}
		return nil
	})
	if err != nil {
		panic(err)
	}
}

func imports(f *ast.File) []string {
	var paths []string
	for _, spec := range f.Imports {
		path, _ := strconv.Unquote(spec.Path.Value) // the parser has checked it
		paths = append(paths, path)
	}
	return paths
}

// moduleOf is the listed module that a package belongs to, or "".
func moduleOf(path string) string {
	for m := range modules {
		if path == m || strings.HasPrefix(path, m+"/") {
			return m
		}
	}
	return ""
}

// required reads the modules of go.mod and whether each is required directly.
func required(t *testing.T) map[string]bool {
	t.Helper()
	mod, err := os.ReadFile("go.mod")
	if err != nil {
		t.Fatal(err)
	}
	line := regexp.MustCompile(`(?m)^(?:require)?\s+(\S+\.\S+/\S+) v\S+(.*)$`)
	direct := map[string]bool{}
	for _, m := range line.FindAllStringSubmatch(string(mod), -1) {
		direct[m[1]] = !strings.Contains(m[2], "// indirect")
	}
	return direct
}

func isProblemCode(f file, typ ast.Expr) bool {
	switch e := typ.(type) {
	case *ast.SelectorExpr:
		x, ok := identOf(e, true)
		return ok && x == "problem" && e.Sel.Name == "Code"
	case *ast.Ident:
		return f.pkg == "problem" && e.Name == "Code"
	}
	return false
}

func identOf(sel *ast.SelectorExpr, ok bool) (string, bool) {
	if !ok {
		return "", false
	}
	x, ok := sel.X.(*ast.Ident)
	if !ok {
		return "", false
	}
	return x.Name, true
}

func nameField(lit *ast.CompositeLit) string {
	for _, e := range lit.Elts {
		kv, ok := e.(*ast.KeyValueExpr)
		if !ok || fmt.Sprint(kv.Key) != "Name" {
			continue
		}
		if v, ok := kv.Value.(*ast.BasicLit); ok {
			s, _ := strconv.Unquote(v.Value) // the parser has checked it
			return s
		}
	}
	return ""
}

// workspaceTables are the tables of the embedded *.sql files that have a column
// called workspace.
func workspaceTables(t *testing.T) map[string]bool {
	t.Helper()
	create := regexp.MustCompile(`(?is)CREATE TABLE (?:IF NOT EXISTS )?(\w+)\s*\((.*?)\n\)`)
	column := regexp.MustCompile(`(?m)^\s*workspace\s`)
	tables := map[string]bool{}
	walk(func(path string) {
		if !strings.HasSuffix(path, ".sql") {
			return
		}
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range create.FindAllStringSubmatch(string(text), -1) {
			tables[m[1]] = column.MatchString(m[2])
		}
	})
	return tables
}

// An sqlText is a string of the source with what was added to it by +, and the
// function, variable or constant (package.Name) it stands in.
type sqlText struct {
	text  string
	owner string
	pos   token.Pos
}

func sqlTexts(f file) []sqlText {
	var texts []sqlText
	for _, d := range f.ast.Decls {
		owner := ""
		ast.Inspect(d, func(n ast.Node) bool {
			switch e := n.(type) {
			case *ast.FuncDecl:
				owner = f.pkg + "." + e.Name.Name
			case *ast.ValueSpec:
				if g, ok := d.(*ast.GenDecl); ok && slices.Contains(g.Specs, ast.Spec(e)) {
					owner = f.pkg + "." + e.Names[0].Name
				}
			case *ast.BinaryExpr, *ast.BasicLit:
				texts = append(texts, sqlText{literals(n, f.pkg, constants()), owner, n.Pos()})
				return false
			}
			return true
		})
	}
	return texts
}

// literals joins the strings of an expression, known constants included; what is
// computed between them is left out.
func literals(e ast.Node, pkg string, known map[string]string) string {
	var b strings.Builder
	ast.Inspect(e, func(n ast.Node) bool {
		switch e := n.(type) {
		case *ast.BasicLit:
			if e.Kind == token.STRING {
				s, _ := strconv.Unquote(e.Value) // the parser has checked it
				b.WriteString(s)
			}
		case *ast.Ident:
			b.WriteString(known[pkg+"."+e.Name])
		}
		return true
	})
	return b.String()
}

// constants are the string constants of all packages (package.Name).
var constants = sync.OnceValue(func() map[string]string {
	found := map[string]string{}
	for _, f := range tree() {
		for _, d := range f.ast.Decls {
			g, ok := d.(*ast.GenDecl)
			for i := 0; ok && g.Tok == token.CONST && i < len(g.Specs); i++ {
				v := g.Specs[i].(*ast.ValueSpec)
				if len(v.Values) == 1 {
					found[f.pkg+"."+v.Names[0].Name] = literals(v.Values[0], "", nil)
				}
			}
		}
	}
	return found
})
