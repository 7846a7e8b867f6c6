package image

import (
	"strings"
	"testing"
)

func TestExplainPath(t *testing.T) {
	const ref = "failed to solve: failed to compute cache key: failed to calculate checksum of ref k3j2::9x8y: "
	for name, c := range map[string]struct{ instruction, text, message, hint string }{
		"context":     {"COPY nothing.txt /", ref + `"/nothing.txt": not found`, `"/nothing.txt" is not in the build context`, ".dockerignore"},
		"spaces":      {`COPY ["a file", "/"]`, ref + `"/a file": not found`, `"/a file" is not in the build context`, ".dockerignore"},
		"stage":       {"COPY --from=build /app /app", ref + `"/app": not found`, `"/app" is not in the stage or image "build"`, "the steps of build"},
		"mount":       {"RUN --mount=type=bind,from=build,source=/app,target=/x true", ref + `"/app": not found`, `"/app" is not in the stage or image "build"`, "the steps of build"},
		"other words": {"COPY x /", "failed to calculate checksum: x not found", "as it was", ".dockerignore"},
	} {
		e := &BuildError{Instruction: c.instruction, Message: "as it was"}
		explainPath(e, c.text)
		if e.Message != c.message || !strings.Contains(e.Hint, c.hint) {
			t.Errorf("%s: %q, hint %q; want %q, hint with %q", name, e.Message, e.Hint, c.message, c.hint)
		}
	}
}
