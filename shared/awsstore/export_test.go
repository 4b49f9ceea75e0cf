package awsstore

import (
	"context"
	"net/http"
	"time"
)

// AskSilent asks a server with the store's own client, which waits for so long.
func AskSilent(ctx context.Context, url string, silence time.Duration) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	res, err := patient(nil, silence).Do(req)
	if err == nil {
		res.Body.Close()
	}
	return err
}
