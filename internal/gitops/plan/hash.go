package plan

import (
	"crypto/sha256"
	"encoding/binary"
	"math"
	"slices"
	"strconv"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// Hash names the content of a desired object. It does not depend on the order
// of fields or on the process, so it can be stored.
func Hash(desired *unstructured.Unstructured) [16]byte {
	var h hasher
	h.buf = make([]byte, 0, 4096)
	h.value(desired.Object)
	sum := sha256.Sum256(h.buf)
	return [16]byte(sum[:16])
}

type hasher struct {
	buf  []byte
	keys []string // a stack
}

func (h *hasher) text(tag byte, s string) {
	h.buf = append(h.buf, tag)
	h.buf = binary.AppendUvarint(h.buf, uint64(len(s)))
	h.buf = append(h.buf, s...)
}

func (h *hasher) value(v any) {
	switch x := v.(type) {
	case map[string]any:
		h.buf = append(h.buf, 'm')
		h.buf = binary.AppendUvarint(h.buf, uint64(len(x)))
		base := len(h.keys)
		for k := range x {
			h.keys = append(h.keys, k)
		}
		end := len(h.keys)
		slices.Sort(h.keys[base:end])
		for i := base; i < end; i++ {
			k := h.keys[i]
			h.text('k', k)
			h.value(x[k])
		}
		h.keys = h.keys[:base]
	case []any:
		h.buf = append(h.buf, 'l')
		h.buf = binary.AppendUvarint(h.buf, uint64(len(x)))
		for _, item := range x {
			h.value(item)
		}
	case string:
		h.text('s', x)
	case bool:
		if x {
			h.buf = append(h.buf, 't')
		} else {
			h.buf = append(h.buf, 'f')
		}
	case nil:
		h.buf = append(h.buf, '0')
	case int64:
		h.integer(x)
	case int:
		h.integer(int64(x))
	case float64:
		if x == math.Trunc(x) && math.Abs(x) < 1<<53 {
			h.integer(int64(x))
			return
		}
		h.buf = binary.LittleEndian.AppendUint64(append(h.buf, 'd'), math.Float64bits(x))
	}
}

func (h *hasher) integer(n int64) {
	h.buf = append(h.buf, 'i')
	h.buf = binary.AppendVarint(h.buf, n)
}

// formatNumber writes a number as JSON does.
func formatNumber(n float64) string { return strconv.FormatFloat(n, 'f', -1, 64) }
