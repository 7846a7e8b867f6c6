package jsonnet

import (
	"context"
	"errors"
	"reflect"
	"runtime"
	"runtime/metrics"
	"strings"
	"unsafe"

	gojsonnet "github.com/google/go-jsonnet"
	"github.com/google/go-jsonnet/ast"
)

var (
	errMemory = errors.New("takes too much memory")
	errDepth  = errors.New("recurses too deep")
)

const (
	maxDepth    = 50000   // expressions under way, each about 2 KB of stack
	checkEvery  = 1 << 10 // expressions between two looks at the context
	sampleEvery = 1 << 16 // expressions between two looks at the heap
	heapMetric  = "/memory/classes/heap/objects:bytes"
)

// limiter ends an evaluation that takes too long or too much. Jsonnet knows no
// way to cancel one, and a loop of tail calls makes it recurse until Go ends the
// process. But it calls a hook before and after each expression; a panic in the
// hook unwinds the evaluation, and Jsonnet turns panics into errors.
type limiter struct {
	ctx    context.Context
	count  uint
	depth  int // expressions under way
	base   uint64
	sample []metrics.Sample
	node   ast.Node // where it was stopped
	err    error    // why
}

// install sets the hooks. They are fields that only Jsonnet's own debugger can
// set, hence the detour; their types are checked, so that another version of
// the library gives an error and nothing worse.
func (l *limiter) install(vm *gojsonnet.VM) error {
	hook := reflect.ValueOf(&vm.EvalHook).Elem()
	pre, post := hook.FieldByName("pre"), hook.FieldByName("post")
	node, fault := reflect.TypeFor[ast.Node](), reflect.TypeFor[error]()
	if !takes(pre, reflect.Pointer, node) || !takes(post, reflect.Pointer, node, nil, fault) || post.Type().In(2).Kind() != reflect.Interface {
		return errors.New("this version of the Jsonnet library is not known: its evaluations cannot be bounded")
	}
	// The pointer stands for Jsonnet's interpreter and the pair of pointers for
	// its value, an interface. Neither is looked at.
	type value struct{ _, _ unsafe.Pointer }
	*(*func(unsafe.Pointer, ast.Node))(unsafe.Pointer(pre.UnsafeAddr())) = func(_ unsafe.Pointer, n ast.Node) { l.before(n) }
	*(*func(unsafe.Pointer, ast.Node, value, error))(unsafe.Pointer(post.UnsafeAddr())) = func(unsafe.Pointer, ast.Node, value, error) { l.depth-- }
	return nil
}

// takes reports whether v is a function without results whose first argument
// is of a kind and the others of the given types; nil is any.
func takes(v reflect.Value, first reflect.Kind, rest ...reflect.Type) bool {
	if !v.IsValid() || v.Kind() != reflect.Func || v.Type().NumOut() != 0 || v.Type().NumIn() != 1+len(rest) || v.Type().In(0).Kind() != first {
		return false
	}
	for i, want := range rest {
		if want != nil && v.Type().In(i+1) != want {
			return false
		}
	}
	return true
}

func (l *limiter) start(ctx context.Context) {
	if l.sample == nil {
		l.sample = []metrics.Sample{{Name: heapMetric}}
	}
	l.ctx, l.count, l.depth, l.err, l.node = ctx, 0, 0, nil, nil
	l.base = l.heap()
}

// stop returns why the evaluation was ended, or nil.
func (l *limiter) stop() error {
	l.ctx = nil
	return l.err
}

func (l *limiter) heap() uint64 {
	metrics.Read(l.sample)
	if l.sample[0].Value.Kind() != metrics.KindUint64 {
		return 0
	}
	return l.sample[0].Value.Uint64()
}

func (l *limiter) before(n ast.Node) {
	if l.depth++; l.depth > maxDepth && l.ctx != nil {
		l.end(n, errDepth)
	}
	if l.count++; l.count%checkEvery != 0 || l.ctx == nil {
		return
	}
	if err := l.ctx.Err(); err != nil {
		l.end(n, err)
	}
	if l.count%sampleEvery == 0 {
		if l.heap() <= l.base+maxMemory {
			return
		}
		runtime.GC() // what is not in use does not count
		if l.heap() > l.base+maxMemory {
			l.end(n, errMemory)
		}
	}
}

func (l *limiter) end(n ast.Node, err error) {
	l.err, l.node = err, n
	panic(err)
}

// line is where in file the evaluation was ended, or 0.
func (l *limiter) line(file string) int {
	if l.node == nil || l.node.Loc() == nil || strings.TrimPrefix(l.node.Loc().FileName, "/") != file {
		return 0
	}
	return l.node.Loc().Begin.Line
}
