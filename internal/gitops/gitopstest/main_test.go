package gitopstest

import (
	"testing"

	"go.uber.org/goleak"
)

// TestMain fails when something that a test started still runs.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }
