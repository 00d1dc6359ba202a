package store

import (
	"crypto/rand"
	"encoding/binary"
	"time"
)

// crockford is the alphabet of ULIDs, in the order of its values.
const crockford = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"

// ID makes an identifier: prefix and a ULID, 26 characters that sort by the
// millisecond of their making. It is a name, not a secret: it opens nothing.
func ID(prefix string) string {
	var random [10]byte
	_, _ = rand.Read(random[:]) // never fails
	hi := uint64(time.Now().UnixMilli())<<16 | uint64(binary.BigEndian.Uint16(random[:2]))
	lo := binary.BigEndian.Uint64(random[2:])
	var text [26]byte
	for i := len(text) - 1; i >= 0; i-- {
		text[i] = crockford[lo&31]
		lo, hi = lo>>5|hi<<59, hi>>5
	}
	return prefix + string(text[:])
}
