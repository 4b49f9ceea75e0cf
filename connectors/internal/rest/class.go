package rest

import (
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/deltadesk/deltadesk/shared/desk"
)

// ClassOf returns the class of a status that is no success.
func ClassOf(status int) error {
	switch status {
	case http.StatusUnauthorized, http.StatusForbidden:
		return desk.ErrUnauthorized
	case http.StatusNotFound, http.StatusGone:
		return desk.ErrNotFound
	case http.StatusConflict, http.StatusPreconditionFailed:
		return desk.ErrConflict
	case http.StatusTooManyRequests:
		return desk.ErrThrottled
	case http.StatusRequestTimeout, http.StatusTooEarly:
		return desk.ErrTransient
	}
	if status >= 400 && status < 500 {
		return desk.ErrRejected
	}
	return desk.ErrTransient
}

// maxRetryAfter bounds what a desk may ask for: a mistyped date must not stop a migration for a year.
const maxRetryAfter = 24 * time.Hour

// RetryAfter reads the Retry-After header in both forms, seconds and HTTP date. 0 where there is none.
func RetryAfter(value string, now time.Time) time.Duration {
	value = strings.TrimSpace(value)
	if value == "" {
		return 0
	}
	var d time.Duration
	if s, err := strconv.ParseFloat(value, 64); err == nil {
		if s > maxRetryAfter.Seconds() {
			return maxRetryAfter
		}
		d = time.Duration(s * float64(time.Second))
	} else if t, err := http.ParseTime(value); err == nil {
		d = t.Sub(now)
	}
	return min(max(d, 0), maxRetryAfter)
}
