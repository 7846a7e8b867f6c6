package service

import (
	"bytes"
	"context"
	"encoding/base64"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/streaming"
	azure "github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blob"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/bloberror"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blockblob"
)

func client(t *testing.T, url string) *blockblob.Client {
	t.Helper()
	c, err := blockblob.NewClientWithNoCredential(url, &blockblob.ClientOptions{ClientOptions: policy.ClientOptions{Retry: policy.RetryOptions{MaxRetries: -1}}})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func body(s string) io.ReadSeekCloser { return streaming.NopCloser(strings.NewReader(s)) }

func id(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }

// TestBlobsByTheSDK uses Azure's SDK for Go on signed URLs.
func TestBlobsByTheSDK(t *testing.T) {
	s := serve(t, func(c *Config) { c.ArtifactQuota = 1 << 20 })
	u, err := s.newArtifact(t.Context(), "", scope(1, 1), "räport", "text/plain", s.clock.Now().AddDate(0, 0, 1))
	if err != nil {
		t.Fatal(err)
	}
	c := client(t, s.uploadURL(u))
	for _, block := range []string{"b", "a", "unused", "b"} { // the last replaces the first
		if _, err := c.StageBlock(t.Context(), id(block), body("block "+block+" "), nil); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := c.CommitBlockList(t.Context(), []string{id("a"), id("missing")}, nil); !bloberror.HasCode(err, bloberror.InvalidBlockList) {
		t.Errorf("a block that was not put: %v", err)
	}
	list := []string{id("a"), id("b"), id("a")}
	for range 2 { // the answer may be lost
		if _, err := c.CommitBlockList(t.Context(), list, nil); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := c.StageBlock(t.Context(), id("c"), body(strings.Repeat("x", 2<<20)), nil); !bloberror.HasCode(err, bloberror.RequestBodyTooLarge) {
		t.Errorf("beyond the quota: %v", err)
	}
	if _, err := c.Upload(t.Context(), body("wrong"), &blockblob.UploadOptions{TransactionalContentMD5: make([]byte, 16)}); !bloberror.HasCode(err, bloberror.MD5Mismatch) {
		t.Errorf("another MD5: %v", err)
	}
	if _, err := c.GetProperties(t.Context(), nil); err == nil {
		t.Error("an unfinished upload can be read")
	}
	a, err := s.finalizeArtifact(t.Context(), u, -1, "")
	if err != nil {
		t.Fatal(err)
	}
	const want = "block a block b block a "
	if a.Size != int64(len(want)) || len(s.staged) != 0 {
		t.Errorf("%+v, staged %v", a, s.staged)
	}
	if _, err := c.Upload(t.Context(), body("late"), nil); !bloberror.HasCode(err, bloberror.BlobNotFound) {
		t.Errorf("after it was finalized: %v", err)
	}

	url, err := s.ArtifactURL(t.Context(), "acme/app", a.ID)
	if err != nil {
		t.Fatal(err)
	}
	d := client(t, url)
	p, err := d.GetProperties(t.Context(), nil)
	if err != nil || *p.ContentLength != a.Size || *p.BlobType != azure.BlobTypeBlockBlob || *p.ContentType != "text/plain" || p.ETag == nil || p.LastModified == nil {
		t.Errorf("%+v %v", p, err)
	}
	if !strings.Contains(*p.ContentDisposition, "filename*=UTF-8''r%C3%A4port") {
		t.Errorf("disposition %q", *p.ContentDisposition)
	}
	r, err := d.DownloadStream(t.Context(), &azure.DownloadStreamOptions{Range: azure.HTTPRange{Offset: 6, Count: 9}})
	if err != nil {
		t.Fatal(err)
	}
	part, err := io.ReadAll(r.Body)
	if err != nil || string(part) != want[6:15] || r.Body.Close() != nil {
		t.Errorf("range %q %v", part, err)
	}
	buffer := make([]byte, a.Size)
	if n, err := d.DownloadBuffer(t.Context(), buffer, &azure.DownloadBufferOptions{BlockSize: 5, Concurrency: 3}); err != nil || string(buffer[:n]) != want {
		t.Errorf("%q %v", buffer, err)
	}
	for name, bad := range map[string]string{"signature": strings.Replace(url, "sig=", "sig=A", 1), "permissions": strings.Replace(url, "sp=r", "sp=rw", 1), "other": strings.Replace(url, "/artifact/1/", "/artifact/2/", 1)} {
		if _, err := client(t, bad).GetProperties(t.Context(), nil); err == nil {
			t.Errorf("%s: the URL is accepted", name)
		}
	}
	s.clock.add(readLife)
	if status, text, _ := s.do("GET", url, ""); status != http.StatusForbidden || !strings.Contains(text, "AuthenticationFailed") {
		t.Errorf("after its time: %d %s", status, text)
	}
}

// TestStream uploads in parallel blocks and in one stream.
func TestStream(t *testing.T) {
	s := serve(t, nil)
	want := bytes.Repeat([]byte("0123456789abcdef"), 1<<18) // 4 MiB
	for name, upload := range map[string]func(context.Context, *blockblob.Client) error{
		"stream": func(ctx context.Context, c *blockblob.Client) error {
			_, err := c.UploadStream(ctx, bytes.NewReader(want), &blockblob.UploadStreamOptions{BlockSize: 1 << 20, Concurrency: 4})
			return err
		},
		"whole": func(ctx context.Context, c *blockblob.Client) error {
			_, err := c.UploadBuffer(ctx, want, nil)
			return err
		},
	} {
		u, err := s.newCache(t.Context(), "", scope(1, 1), name, "v")
		if err != nil {
			t.Fatal(err)
		}
		if err := upload(t.Context(), client(t, s.uploadURL(u))); err != nil {
			t.Fatal(name, err)
		}
		if _, err := s.finalizeCache(t.Context(), u, int64(len(want))+1); err == nil {
			t.Errorf("%s: another size is accepted", name)
		}
		c, err := s.finalizeCache(t.Context(), u, int64(len(want)))
		if err != nil {
			t.Fatal(name, err)
		}
		b, err := s.OpenCache(c)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(b)
		if err != nil || !bytes.Equal(got, want) || b.Close() != nil {
			t.Errorf("%s: %d bytes, %v", name, len(got), err)
		}
	}
}

func TestBadBlobRequests(t *testing.T) {
	s := serve(t, nil)
	u, err := s.newArtifact(t.Context(), "", scope(1, 1), "a", "", s.clock.Now().AddDate(0, 0, 1))
	if err != nil {
		t.Fatal(err)
	}
	url := s.uploadURL(u)
	for name, c := range map[string]struct {
		method, url, body, header, want string
	}{
		"kind of blob":  {"PUT", url, "x", "x-ms-blob-type:PageBlob", "InvalidHeaderValue"},
		"block ID":      {"PUT", url + "&comp=block&blockid=*", "x", "", "InvalidQueryParameterValue"},
		"verb":          {"DELETE", url, "", "", "UnsupportedHttpVerb"},
		"operation":     {"PUT", url + "&comp=lease", "", "", "InvalidQueryParameterValue"},
		"structured":    {"PUT", url, "x", "x-ms-structured-body:XSM/1.0", "UnsupportedHeader"},
		"MD5":           {"PUT", url, "x", "Content-MD5:abc", "InvalidMd5"},
		"list":          {"PUT", url + "&comp=blocklist", "<a/>", "", "InvalidXmlDocument"},
		"list not XML":  {"PUT", url + "&comp=blocklist", "<BlockList><Latest>", "", "InvalidXmlDocument"},
		"list too long": {"PUT", url + "&comp=blocklist", "<BlockList>" + strings.Repeat("<Latest>a</Latest>", maxBlocks+1) + "</BlockList>", "", "BlockListTooLong"},
		"no such place": {"GET", s.signedURL("other", "1", "", "r", readLife), "", "", "BlobNotFound"},
		"no such blob":  {"GET", s.signedURL(kindCache, "77", "", "r", readLife), "", "", "BlobNotFound"},
	} {
		key, value, _ := strings.Cut(c.header, ":")
		var header []string
		if key != "" {
			header = []string{key, value}
		}
		status, text, answer := s.do(c.method, c.url, c.body, header...)
		if status < 400 || !strings.Contains(text, "<Code>"+c.want+"</Code>") || answer.Header.Get("x-ms-error-code") != c.want {
			t.Errorf("%s: %d %s", name, status, text)
		}
	}
}

func FuzzBlockList(f *testing.F) {
	f.Add(`<?xml version="1.0"?><BlockList><Latest>YQ==</Latest><Uncommitted>Yg==</Uncommitted></BlockList>`)
	f.Add(`<BlockList></BlockList></BlockList>`)
	f.Fuzz(func(t *testing.T, text string) {
		ids, err := blockList(strings.NewReader(text))
		if err == nil && ids == nil {
			t.Fatal("neither a list nor an error")
		}
	})
}

func FuzzRequest(f *testing.F) {
	f.Add([]byte(`{"nameFilter":"x","idFilter":"7","expiresAt":"2026-01-01T00:00:00Z"}`))
	f.Add([]byte(`{"size":1e3,"restore_keys":["a"]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		renamed, err := snakeCase(data)
		if err != nil {
			return
		}
		s, o := &Service{}, &opened{}
		for _, m := range []call{method(func(context.Context, *opened, createArtifact) (int, error) { return 0, nil }),
			method(func(context.Context, *opened, finalizeArtifact) (int, error) { return 0, nil }),
			method(func(context.Context, *opened, cacheRequest) (int, error) { return 0, nil })} {
			if _, err := m(t.Context(), o, renamed); err != nil && asTwirp(err) == nil {
				t.Fatalf("%v is no error of the client (%v)", err, s)
			}
		}
	})
}
