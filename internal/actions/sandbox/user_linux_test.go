package sandbox

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestLookUser(t *testing.T) {
	dir := t.TempDir()
	for name, content := range map[string]string{
		"passwd": "root:x:0:0:root:/root:/bin/sh\nbroken\nbad:x:many:0::/:\napp:x:1000:1001:App:/home/app:/bin/sh\nhomeless:x:7:7:::/bin/sh\n",
		"group":  "root:x:0:\napp:x:1001:\nextra:x:2000:other,app\nbroken\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for spec, want := range map[string]string{
		"root": "0:0 [] /root", "app": "1000:1001 [2000] /home/app", "1000": "1000:1001 [2000] /home/app", "app:extra": "1000:2000 [] /home/app",
		"42": "42:0 [] /", "42:43": "42:43 [] /", "homeless": "7:7 [] /", "0:0": "0:0 [] /root",
	} {
		who, home, err := lookUser(spec, dir)
		if err != nil {
			t.Errorf("%s: %v", spec, err)
			continue
		}
		if got := fmt.Sprintf("%d:%d %v %s", who.Uid, who.Gid, slices.Clone(who.Groups), home); got != want {
			t.Errorf("%s is %s, want %s", spec, got, want)
		}
	}
	for _, bad := range []string{"nobody-here", "app:nothing", "bad", "-1", "4294967296", ":"} {
		if who, _, err := lookUser(bad, dir); err == nil {
			t.Errorf("%q is %+v", bad, who)
		}
	}
}
