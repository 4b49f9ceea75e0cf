// Package awsstore keeps the engine's state in AWS: rows in one DynamoDB table, objects in one S3 bucket, messages in one
// SQS queue. It implements delta.Rows, delta.Objects and delta.Queue and decides nothing.
//
// The table has the engine's keys as they are: PartKey is Key.Part, SortKey is Key.Sort. The engine's partitions are many
// and small (one per record, one per plan page), so the table's load spreads by itself. Every write of a row is one
// conditional PutItem or DeleteItem; there are no transactions, no indexes and no counters.
//
// A row's version is the time of its last write in nanoseconds, or a little more, so that a row that is made again does not
// take up the versions it had before.
//
// The SDK tries a request again when an answer gets lost, and the second try of a conditional write then meets what the
// first one did. Put, Delete and Objects.Put know which of their tries had no answer and never take their own write for
// somebody else's; what cannot be told is an error that says so, and never delta.ErrStale.
//
// Whoever may read the bucket needs s3:ListBucket as well: without it S3 answers "access denied" where an object is absent.
package awsstore

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"path"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/smithy-go/logging"

	"github.com/deltadesk/deltadesk/shared/delta"
)

// The table's key: both are strings. It needs no other attribute, index or stream.
const (
	PartKey = "part" // partition key
	SortKey = "sort" // sort key
)

const (
	// attempts of one request, the first included. With pauses of half a second, one, two and then about two and a half
	// seconds on average that is a quarter of a minute; a caller who has less time says so in the context. The SDK's quota of
	// retries (500 tokens per client) ends it earlier when nearly everything fails.
	attempts   = 8
	maxBackoff = 5 * time.Second

	// How long a connection may be silent while we wait for its answer or its next bytes. Uploading a part of an object counts as
	// silence, because the answer comes afterwards.
	rowSilence    = 10 * time.Second
	objectSilence = time.Minute
	dialTimeout   = 5 * time.Second
)

// Config names what a stack has. Table, Bucket and QueueURL are needed.
type Config struct {
	Table    string
	Bucket   string
	QueueURL string
	// PathStyle puts the bucket into the path instead of the host's name, for servers that stand in for S3.
	PathStyle bool
	// Log takes what the SDK has to say beside its errors, at debug level; nil drops it. It would go to stderr as plain text
	// otherwise.
	Log *slog.Logger
}

// Check returns everything that is missing or wrong, joined.
func (c Config) Check() error {
	var bad []error
	for _, f := range []struct{ what, value string }{{"the table's name", c.Table}, {"the bucket's name", c.Bucket}, {"the queue's URL", c.QueueURL}} {
		if f.value == "" {
			bad = append(bad, fmt.Errorf("%s is missing", f.what))
		}
	}
	if u, err := url.Parse(c.QueueURL); c.QueueURL != "" && (err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http") {
		bad = append(bad, errors.New("the queue's URL is no URL; a queue's name or ARN will not do"))
	}
	return errors.Join(bad...)
}

// Store is a table, a bucket and a queue. It is safe for concurrent use.
type Store struct {
	rows    *Rows
	objects *Objects
	queue   *Queue
	meter   *meter
}

// Open returns the store. All mistakes in c are in its error. Nothing is asked of AWS yet, so a name that does not exist
// shows with the first call.
//
// Of cfg it takes region, credentials, endpoints and the HTTP client, which should be the SDK's own (nil, or an
// awshttp.BuildableClient, as config.LoadDefaultConfig gives it: it also knows AWS_CA_BUNDLE). Timeouts and retries are
// set here whatever cfg or the environment say: with a single attempt, one lost answer in ten thousand would be an error.
func Open(_ context.Context, cfg aws.Config, c Config) (*Store, error) {
	if err := c.Check(); err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	if cfg.Region == "" {
		return nil, errors.New("open store: there is no AWS region; set AWS_REGION or name one in the profile")
	}
	s := &Store{meter: newMeter()}
	cfg.APIOptions = append(cfg.APIOptions[:len(cfg.APIOptions):len(cfg.APIOptions)], s.Count)
	cfg.RetryMaxAttempts = 0
	cfg.Retryer = func() aws.Retryer {
		return retry.NewStandard(func(o *retry.StandardOptions) {
			o.MaxAttempts, o.MaxBackoff = attempts, maxBackoff
			// The SDK tries again where a connection ended before its answer, but not where it ended within it.
			o.Retryables = append(o.Retryables, retry.IsErrorRetryableFunc(func(err error) aws.Ternary {
				if errors.Is(err, io.ErrUnexpectedEOF) {
					return aws.TrueTernary
				}
				return aws.UnknownTernary
			}))
		})
	}
	cfg.Logger = logging.LoggerFunc(func(_ logging.Classification, format string, args ...any) {
		if c.Log != nil {
			c.Log.Debug("the AWS SDK says", "what", fmt.Sprintf(format, args...))
		}
	})
	cfg.HTTPClient = patient(cfg.HTTPClient, rowSilence)
	s.rows = &Rows{client: dynamodb.NewFromConfig(cfg), table: c.Table}
	s.queue = &Queue{client: sqs.NewFromConfig(cfg), url: c.QueueURL}
	cfg.HTTPClient = patient(cfg.HTTPClient, objectSilence)
	client := s3.NewFromConfig(cfg, func(o *s3.Options) {
		o.UsePathStyle = c.PathStyle
		// Our own reader checks every byte; the SDK could not where an object came in parts, and says so on stderr each time.
		o.ResponseChecksumValidation = aws.ResponseChecksumValidationWhenRequired
		o.DisableLogOutputChecksumValidationSkipped = true
	})
	s.objects = &Objects{client: client, bucket: c.Bucket, uploads: newUploads(client, c.Bucket)}
	return s, nil
}

// patient returns a client that gives up on a connection that is silent for so long. One that is not the SDK's own is
// left as it is.
func patient(c aws.HTTPClient, silence time.Duration) aws.HTTPClient {
	if c == nil {
		c = awshttp.NewBuildableClient()
	}
	b, ok := c.(*awshttp.BuildableClient)
	if !ok {
		return c
	}
	return b.WithDialerOptions(func(d *net.Dialer) { d.Timeout = cmp.Or(min(d.Timeout, dialTimeout), dialTimeout) }).
		WithTransportOptions(func(t *http.Transport) { t.TLSHandshakeTimeout, t.MaxIdleConnsPerHost = dialTimeout, 100 }).
		WithReadTimeout(silence)
}

// Rows returns the table.
func (s *Store) Rows() *Rows { return s.rows }

// Objects returns the bucket.
func (s *Store) Objects() *Objects { return s.objects }

// Queue returns the queue.
func (s *Store) Queue() *Queue { return s.queue }

// Prefix is a part of the bucket that has a rule of its own for how long its objects are kept.
type Prefix struct {
	Name string // with the slash: "staging/"
	Days int    // after which S3 expires an object; 0: never
}

// Prefixes are all first parts of keys in a stack's bucket: those of the engine, the migration files, and archives. The
// bucket's lifecycle rules are made after them.
func Prefixes() []Prefix {
	var all []Prefix
	for _, p := range delta.ObjectPrefixes() {
		all = append(all, Prefix{p.Name, int(p.Kept / (24 * time.Hour))})
	}
	return append(all, Prefix{"config/", 0}, Prefix{"archive/", 0})
}

// explain says what to do about an error of AWS that a person has to see to.
func explain(err error) error {
	switch code(err) {
	case "":
		return err
	case "ResourceNotFoundException", "NoSuchBucket", "AWS.SimpleQueueService.NonExistentQueue", "QueueDoesNotExist":
		return fmt.Errorf("it does not exist; check the stack's outputs and the function's environment: %w", err)
	case "AccessDenied", "AccessDeniedException", "KMS.AccessDeniedException":
		return fmt.Errorf("access denied; check the role's policy, and that of the key if one is set: %w", err)
	}
	if throttled(err) {
		return fmt.Errorf("AWS throttled it %d times in a row; it goes on by itself: %w", attempts, err)
	}
	return err
}

// queueName is the last part of a queue's URL.
func queueName(u string) string { return path.Base(u) }

var (
	_ delta.Rows    = (*Rows)(nil)
	_ delta.Objects = (*Objects)(nil)
	_ delta.Queue   = (*Queue)(nil)
)
