package requesttracker

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"net/url"

	"github.com/deltadesk/deltadesk/connectors/internal/rest"
	"github.com/deltadesk/deltadesk/shared/desk"
)

func file(id, name, typ string, content []byte) desk.File {
	sum := sha256.Sum256(content)
	return desk.File{ID: id, Name: name, Type: typ, Size: int64(len(content)), SHA256: hex.EncodeToString(sum[:]), Open: func(context.Context) (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(content)), nil
	}}
}

func mustConn(addr string) rest.Connection {
	u, err := url.Parse(addr)
	if err != nil {
		panic(err)
	}
	return rest.Connection{URL: u, AllowHTTP: true, AllowPrivate: true}
}
