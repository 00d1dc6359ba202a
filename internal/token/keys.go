package token

import (
	"cmp"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"database/sql"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/gatehouse-mcp/gatehouse/internal/problem"
	"github.com/gatehouse-mcp/gatehouse/internal/seal"
	"github.com/gatehouse-mcp/gatehouse/internal/store"
)

// The life of a signing key is next, active, retiring, gone (R419). A next key is
// published long before it signs, so that whoever verifies knows it; a retiring
// one verifies until the last token that it signed has expired, on the slowest
// clock.
const (
	KeyLife      = 90 * 24 * time.Hour      // how long a key signs
	keyPublished = 24 * time.Hour           // before it signs
	keyFollowed  = 2 * staleAfter           // in which every node that still answers has seen it
	keyGrace     = AccessLife + 2*clockSkew // after it signed
)

// algorithms make the private keys, by their names in JOSE (RFC 7518 §3.1, RFC
// 8037). ES256 is what holds if nobody chooses: everybody verifies it.
var algorithms = map[string]func() (crypto.Signer, error){
	string(jose.ES256): func() (crypto.Signer, error) { return ecdsa.GenerateKey(elliptic.P256(), rand.Reader) },
	string(jose.EdDSA): func() (crypto.Signer, error) {
		_, private, err := ed25519.GenerateKey(rand.Reader)
		return private, err
	},
	string(jose.RS256): func() (crypto.Signer, error) { return rsa.GenerateKey(rand.Reader, 2048) },
}

// keys are those that are published. One of them signs.
type keys struct {
	version int64 // of what was read
	signing jose.SigningKey
	signer  jose.Signer          // of access tokens
	active  string               // kid of the signer's key
	public  map[string]publicKey // by kid
	until   int64                // when the first of them is gone, µs; 0 if none retires
	jwks    []byte
}

// publicKey verifies what names it, by its own algorithm and no other.
type publicKey struct {
	alg jose.SignatureAlgorithm
	key any
}

// KeyID names the key that signs now.
func (t *Tokens) KeyID() string { return t.keys.Load().active }

// JWKS is the document of the public keys (R112).
func (t *Tokens) JWKS() []byte { return t.keys.Load().jwks }

// useKeys takes new keys instead of older ones.
func (t *Tokens) useKeys(k *keys) {
	for {
		old := t.keys.Load()
		if old != nil && old.version > k.version || t.keys.CompareAndSwap(old, k) {
			return
		}
	}
}

// keysChanged reports whether the keys have to be read again: they were changed, or
// one has come to its end.
func (t *Tokens) keysChanged(tx *store.Tx) (bool, error) {
	var version int64
	err := tx.QueryRow(`SELECT keys FROM revocation_head WHERE one = 1`).Scan(&version)
	k := t.keys.Load()
	return k == nil || k.version != version || k.until != 0 && k.until <= tx.Now, err
}

var (
	keyUnreadable = problem.Code{
		Name: "SIGNING_KEY_UNREADABLE", Kind: problem.Unavailable,
		Why: "the master key is not the one with which the signing key was sealed",
		Fix: "use the master key file that belongs to this database",
	}
	keyNotThere = problem.Code{
		Name: "SIGNING_KEY_UNKNOWN", Kind: problem.NotFound,
		Why: "no signing key that is in use has this id",
		Fix: "take the kid from /.well-known/jwks.json",
	}
	keyTooYoung = problem.Code{
		Name: "SIGNING_KEY_TOO_YOUNG", Kind: problem.Conflict,
		Why: "whoever verifies tokens may not have read that key yet",
		Fix: "wait, or let it sign at once: gatehouse keys rotate --now",
	}
)

// openKeys makes the first keys if there are none, and loads all.
func (t *Tokens) openKeys(ctx context.Context) error {
	if err := t.DB.Do(ctx, t.changeKeys(func(tx *store.Tx) error { return nil })); err != nil {
		return fmt.Errorf("make the signing keys: %w", err)
	}
	return t.DB.View(ctx, func(tx *store.Tx) error {
		loaded, err := t.readKeys(tx)
		t.keys.Store(loaded)
		return err
	})
}

// changeKeys is change between what every change of the keys begins and ends with:
// the row of the head is the lock and tells other nodes, one key signs, one is
// next, and this node uses them as soon as it is certain.
func (t *Tokens) changeKeys(change func(*store.Tx) error) func(*store.Tx) error {
	return func(tx *store.Tx) error {
		if _, err := tx.Exec(`UPDATE revocation_head SET keys = keys + 1 WHERE one = 1`); err != nil {
			return err
		}
		if err := change(tx); err != nil {
			return err
		}
		if err := t.fillKeys(tx); err != nil {
			return err
		}
		changed, err := t.readKeys(tx)
		if err != nil {
			return err
		}
		tx.AfterCommit(func() { t.useKeys(changed) })
		return nil
	}
}

// fillKeys makes the next key the one that signs if there is none, and keys that
// are missing.
func (t *Tokens) fillKeys(tx *store.Tx) error {
	for {
		var active, next int64
		err := tx.QueryRow(`SELECT count(active_at), count(*) - count(active_at) FROM signing_key WHERE retired_at IS NULL AND revoked_at IS NULL`).Scan(&active, &next)
		switch {
		case err != nil || active > 0 && next > 0:
			return err
		case next == 0:
			err = t.makeKey(tx)
		default:
			_, err = tx.Exec(`UPDATE signing_key SET active_at = $1 WHERE generation =
				(SELECT min(generation) FROM signing_key WHERE active_at IS NULL AND revoked_at IS NULL)`, tx.Now)
		}
		if err != nil {
			return err
		}
	}
}

func (t *Tokens) makeKey(tx *store.Tx) error {
	alg := cmp.Or(t.Alg, string(jose.ES256))
	generate, known := algorithms[alg]
	if !known {
		return fmt.Errorf("there are no keys for %s", alg)
	}
	private, err := generate()
	if err != nil {
		return err
	}
	jwk := jose.JSONWebKey{Key: private.Public(), Algorithm: alg, Use: "sig"}
	thumbprint, err := jwk.Thumbprint(crypto.SHA256)
	if err != nil {
		return err
	}
	jwk.KeyID = base64.RawURLEncoding.EncodeToString(thumbprint)
	public, err := jwk.MarshalJSON()
	if err != nil {
		return err
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return err
	}
	sealed, err := t.Box.Seal(privateKeys.Place(jwk.KeyID), der)
	if err != nil {
		return err
	}
	_, err = tx.Exec(`INSERT INTO signing_key (generation, kid, alg, public, private, created_at)
		SELECT COALESCE(max(generation), 0) + 1, $1, $2, $3, $4, $5 FROM signing_key`, jwk.KeyID, alg, string(public), sealed, tx.Now)
	return err
}

// Sealed is what this room keeps sealed.
var Sealed = []seal.Column{privateKeys}

var privateKeys = seal.Column{Table: "signing_key", ID: "kid", Name: "private"}

// readKeys reads what is published now.
func (t *Tokens) readKeys(tx *store.Tx) (*keys, error) {
	loaded, set := keys{public: map[string]publicKey{}}, jose.JSONWebKeySet{}
	if err := tx.QueryRow(`SELECT keys FROM revocation_head WHERE one = 1`).Scan(&loaded.version); err != nil {
		return nil, err
	}
	rows, err := tx.Query(`SELECT kid, alg, public, private, active_at, retired_at FROM signing_key
		WHERE revoked_at IS NULL AND (retired_at IS NULL OR retired_at > $1) ORDER BY generation`, tx.Now-keyGrace.Microseconds())
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		var kid, alg, public string
		var sealed []byte
		var active, retired *int64
		if err := rows.Scan(&kid, &alg, &public, &sealed, &active, &retired); err != nil {
			return nil, err
		}
		var jwk jose.JSONWebKey
		if err := jwk.UnmarshalJSON([]byte(public)); err != nil {
			return nil, err
		}
		if active != nil && retired == nil {
			loaded.active = kid
			if loaded.signing, err = t.signing(kid, alg, sealed); err != nil {
				return nil, err
			}
			if loaded.signer, err = signer(loaded.signing, "at+jwt"); err != nil {
				return nil, err
			}
		}
		if retired != nil && loaded.until == 0 { // they retire in their order
			loaded.until = *retired + keyGrace.Microseconds()
		}
		loaded.public[kid], set.Keys = publicKey{jose.SignatureAlgorithm(alg), jwk.Key}, append(set.Keys, jwk)
	}
	if err := rows.Err(); err != nil {
		return nil, err
	}
	if loaded.signer == nil {
		return nil, errors.New("there is no signing key")
	}
	loaded.jwks, err = json.Marshal(set)
	return &loaded, err
}

func (t *Tokens) signing(kid, alg string, sealed []byte) (jose.SigningKey, error) {
	der, err := t.Box.Open(privateKeys.Place(kid), sealed)
	if err != nil {
		return jose.SigningKey{}, keyUnreadable.New("the signing key cannot be read").Because(err)
	}
	private, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return jose.SigningKey{}, errors.New("the signing key is damaged")
	}
	return jose.SigningKey{Algorithm: jose.SignatureAlgorithm(alg), Key: jose.JSONWebKey{Key: private, KeyID: kid}}, nil
}

// signer signs JWTs of one type, so that none passes for one of another.
func signer(key jose.SigningKey, typ string) (jose.Signer, error) {
	return jose.NewSigner(key, (&jose.SignerOptions{}).WithType(jose.ContentType(typ)))
}

// SignsWith is the algorithm of the key that signs now.
func (t *Tokens) SignsWith() string { return string(t.keys.Load().signing.Algorithm) }

// Sign makes a JWT that is no access token: typ says what it is.
func (t *Tokens) Sign(typ string, claims any) (string, error) {
	payload, err := json.Marshal(claims)
	if err != nil {
		return "", err
	}
	s, err := signer(t.keys.Load().signing, typ)
	if err != nil {
		return "", err
	}
	signed, err := s.Sign(payload)
	if err != nil {
		return "", err
	}
	return signed.CompactSerialize()
}

// RotateKeys lets the next key sign from now on. The one that signed retires: it
// cannot sign any more, and what it signed stays good. A next key that has not been
// published for a day is refused, unless it is to sign now; one that our own nodes
// may not know yet is refused in any case.
func (t *Tokens) RotateKeys(tx *store.Tx, now bool) error {
	return t.changeKeys(func(tx *store.Tx) error {
		var published int64
		err := tx.QueryRow(`SELECT min(created_at) FROM signing_key WHERE active_at IS NULL AND revoked_at IS NULL`).Scan(&published)
		if err != nil {
			return err
		}
		wait := keyPublished
		if now {
			wait = keyFollowed
		}
		if ready := published + wait.Microseconds(); tx.Now < ready {
			young := keyTooYoung.New("the next signing key was published at %s and can sign from %s on", day(published), day(ready))
			young.Retry = time.Duration(ready-tx.Now) * time.Microsecond
			return young
		}
		return retire(tx)
	})(tx)
}

func retire(tx *store.Tx) error {
	_, err := tx.Exec(`UPDATE signing_key SET retired_at = $1, private = $2 WHERE active_at IS NOT NULL AND retired_at IS NULL AND revoked_at IS NULL`, tx.Now, []byte{})
	return err
}

// KeepKeys does what time does to the keys, and says which one came to sign, if one
// did: it takes away those that are gone, makes a next one that is for another
// algorithm anew, and rotates when the active key has signed for its life, or is
// for another algorithm. Call it now and then, on one node.
func (t *Tokens) KeepKeys(tx *store.Tx) (rotated string, err error) {
	alg := cmp.Or(t.Alg, string(jose.ES256))
	err = t.changeKeys(func(tx *store.Tx) error {
		gone := tx.Now - keyGrace.Microseconds()
		if _, err := tx.Exec(`DELETE FROM signing_key WHERE retired_at <= $1 OR revoked_at <= $1`, gone); err != nil {
			return err
		}
		if _, err := tx.Exec(`DELETE FROM signing_key WHERE active_at IS NULL AND revoked_at IS NULL AND alg <> $1`, alg); err != nil {
			return err
		}
		err := tx.QueryRow(`SELECT n.kid FROM signing_key n, signing_key a
			WHERE n.active_at IS NULL AND n.revoked_at IS NULL AND n.created_at <= $1
			AND a.active_at IS NOT NULL AND a.retired_at IS NULL AND a.revoked_at IS NULL AND (a.active_at <= $2 OR a.alg <> $3)`,
			tx.Now-keyPublished.Microseconds(), tx.Now-cmp.Or(t.KeyLife, KeyLife).Microseconds(), alg).Scan(&rotated)
		if errors.Is(err, sql.ErrNoRows) {
			return nil
		}
		if err != nil {
			return err
		}
		return retire(tx)
	})(tx)
	return rotated, err
}

// RevokeKey revokes a signing key: every token that it signed is refused and
// every stream that runs on one ends, here at once and on the other nodes within a
// second, and the key leaves the published document. If it was the one that signs,
// the next one, which every node has known all along, takes its place.
func (t *Tokens) RevokeKey(tx *store.Tx, kid string) error {
	return t.changeKeys(func(tx *store.Tx) error {
		won, err := tx.One(`UPDATE signing_key SET revoked_at = $1 WHERE kid = $2 AND revoked_at IS NULL`, tx.Now, kid)
		if err != nil {
			return err
		}
		if !won {
			return keyNotThere.New("there is no signing key %.64q", kid)
		}
		return t.Revoke(tx, kid, AccessLife)
	})(tx)
}
