package awsstore

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsmiddle "github.com/aws/aws-sdk-go-v2/aws/middleware"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/smithy-go"
	"github.com/aws/smithy-go/middleware"
)

// Usage is what was sent to AWS for one operation on one resource. Requests are counted as they are sent and billed: each
// try of a call is one.
type Usage struct {
	Service   string // "dynamodb", "s3", "sqs", …
	Operation string // of the API: "PutItem"
	// Action is the IAM action that the request needs: "dynamodb:PutItem", "s3:PutObject" for a part of an upload.
	Action string
	// Resource is "table/NAME", "BUCKET/PREFIX/*", "BUCKET" or a queue's name; empty for services that are not the store's.
	Resource string

	Requests  int
	Failed    int // of these, whatever the reason; a condition that does not hold is not counted
	Throttled int // of the failed ones
	// WriteUnits and ReadUnits of DynamoDB: what the service said, or for writes what follows from the size of the items sent
	// (one for each begun KB), if that is more. A delete counts as one where the service says nothing.
	WriteUnits float64
	ReadUnits  float64
}

type meter struct {
	mu  sync.Mutex
	all map[Usage]*Usage // by its names
}

func newMeter() *meter { return &meter{all: map[Usage]*Usage{}} }

// add books on the operation's entry.
func (m *meter) add(of Usage, book func(*Usage)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	u := m.all[of]
	if u == nil {
		u = &of
		m.all[of] = u
	}
	book(u)
}

// Calls returns how many requests were sent, by service and operation ("dynamodb.PutItem"), for reports.
func (s *Store) Calls() map[string]int {
	calls := map[string]int{}
	for _, u := range s.Usage() {
		if u.Requests > 0 {
			calls[u.Service+"."+u.Operation] += u.Requests
		}
	}
	return calls
}

// Usage returns all that was sent since the store was opened, in order of the names: for tests, costs, and to hold what a
// role was granted against what was used.
func (s *Store) Usage() []Usage {
	s.meter.mu.Lock()
	defer s.meter.mu.Unlock()
	var all []Usage
	for _, u := range s.meter.all {
		all = append(all, *u)
	}
	slices.SortFunc(all, func(a, b Usage) int {
		return cmp.Or(cmp.Compare(a.Service, b.Service), cmp.Compare(a.Operation, b.Operation), cmp.Compare(a.Action, b.Action), cmp.Compare(a.Resource, b.Resource))
	})
	return all
}

// Count makes the store count the calls of another client, too: it goes into aws.Config.APIOptions.
func (s *Store) Count(stack *middleware.Stack) error {
	err := stack.Initialize.Add(middleware.InitializeMiddlewareFunc("DeltadeskUsage", func(ctx context.Context, in middleware.InitializeInput, next middleware.InitializeHandler) (middleware.InitializeOutput, middleware.Metadata, error) {
		resource, units := sent(in.Parameters)
		u := usageOf(ctx, resource)
		out, md, err := next.HandleInitialize(middleware.WithStackValue(ctx, usageKey{}, u), in)
		w, r := said(out.Result)
		s.meter.add(u, func(u *Usage) { u.WriteUnits += max(w, units); u.ReadUnits += r })
		return out, md, err
	}), middleware.Before)
	if err != nil {
		return err
	}
	return stack.Finalize.Insert(middleware.FinalizeMiddlewareFunc("DeltadeskAttempt", func(ctx context.Context, in middleware.FinalizeInput, next middleware.FinalizeHandler) (middleware.FinalizeOutput, middleware.Metadata, error) {
		out, md, err := next.HandleFinalize(ctx, in)
		if c, ok := ctx.Value(callKey{}).(*call); ok {
			c.after(err)
		}
		u, _ := middleware.GetStackValue(ctx, usageKey{}).(Usage)
		s.meter.add(u, func(u *Usage) {
			u.Requests++
			if err != nil && !refusal(err) {
				u.Failed++
			}
			if throttled(err) {
				u.Throttled++
			}
		})
		if bucket, _, ok := strings.Cut(u.Resource, "/"); ok && u.Action == "s3:GetObject" && status(err) == http.StatusNotFound {
			// To be told that an object is absent takes a right of its own.
			s.meter.add(Usage{Service: u.Service, Operation: u.Operation, Action: "s3:ListBucket", Resource: bucket}, func(*Usage) {})
		}
		return out, md, err
	}), "Retry", middleware.After)
}

type usageKey struct{}

func usageOf(ctx context.Context, resource string) Usage {
	u := Usage{Operation: awsmiddle.GetOperationName(ctx), Resource: resource}
	u.Service = strings.ToLower(strings.ReplaceAll(awsmiddle.GetServiceID(ctx), " ", ""))
	u.Action = u.Service + ":" + cmp.Or(actions[u.Service+":"+u.Operation], u.Operation)
	return u
}

// actions are the operations that are granted under another name. For all others of the store the name is the same.
// https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazons3.html
var actions = map[string]string{
	"s3:HeadObject": "GetObject", "s3:CreateMultipartUpload": "PutObject", "s3:UploadPart": "PutObject", "s3:CompleteMultipartUpload": "PutObject",
	"sqs:SendMessageBatch": "SendMessage", "sqs:DeleteMessageBatch": "DeleteMessage",
}

// sent returns the resource that a request is about, and how many write units it takes at least.
func sent(in any) (resource string, units float64) {
	object := func(bucket, key *string) (string, float64) {
		first, _, _ := strings.Cut(aws.ToString(key), "/")
		return aws.ToString(bucket) + "/" + first + "/*", 0
	}
	table := func(name *string) string { return "table/" + aws.ToString(name) }
	switch in := in.(type) {
	case *dynamodb.PutItemInput:
		return table(in.TableName), writeUnits(in.Item)
	case *dynamodb.DeleteItemInput:
		return table(in.TableName), 1
	case *dynamodb.GetItemInput:
		return table(in.TableName), 0
	case *dynamodb.QueryInput:
		return table(in.TableName), 0
	case *dynamodb.ScanInput:
		return table(in.TableName), 0
	case *dynamodb.BatchWriteItemInput:
		for name, all := range in.RequestItems {
			resource = table(&name)
			for _, w := range all {
				units += writeUnits(w.PutRequest.Item)
			}
		}
		return resource, units
	case *dynamodb.BatchGetItemInput:
		for name := range in.RequestItems {
			resource = table(&name)
		}
		return resource, 0
	case *s3.PutObjectInput:
		return object(in.Bucket, in.Key)
	case *s3.GetObjectInput:
		return object(in.Bucket, in.Key)
	case *s3.HeadObjectInput:
		return object(in.Bucket, in.Key)
	case *s3.CreateMultipartUploadInput:
		return object(in.Bucket, in.Key)
	case *s3.UploadPartInput:
		return object(in.Bucket, in.Key)
	case *s3.CompleteMultipartUploadInput:
		return object(in.Bucket, in.Key)
	case *s3.AbortMultipartUploadInput:
		return object(in.Bucket, in.Key)
	case *sqs.SendMessageBatchInput:
		return queueName(aws.ToString(in.QueueUrl)), 0
	}
	return "", 0
}

// writeUnits are what an item of this size takes: one for each begun KB of its names and values.
// https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/CapacityUnitCalculations.html
func writeUnits(item map[string]types.AttributeValue) float64 {
	size := 0
	for name, v := range item {
		size += len(name)
		switch v := v.(type) {
		case *types.AttributeValueMemberS:
			size += len(v.Value)
		case *types.AttributeValueMemberN:
			size += (len(v.Value)+1)/2 + 1
		}
	}
	return float64((size + 1023) / 1024)
}

// said returns the units that the service says a call took.
func said(out any) (write, read float64) {
	one := func(c *types.ConsumedCapacity) float64 {
		if c == nil {
			return 0
		}
		return aws.ToFloat64(c.CapacityUnits)
	}
	switch out := out.(type) {
	case *dynamodb.PutItemOutput:
		write = one(out.ConsumedCapacity)
	case *dynamodb.DeleteItemOutput:
		write = one(out.ConsumedCapacity)
	case *dynamodb.GetItemOutput:
		read = one(out.ConsumedCapacity)
	case *dynamodb.QueryOutput:
		read = one(out.ConsumedCapacity)
	case *dynamodb.ScanOutput:
		read = one(out.ConsumedCapacity)
	case *dynamodb.BatchWriteItemOutput:
		for c := range slices.Values(out.ConsumedCapacity) {
			write += one(&c)
		}
	case *dynamodb.BatchGetItemOutput:
		for c := range slices.Values(out.ConsumedCapacity) {
			read += one(&c)
		}
	}
	return write, read
}

type callKey struct{}

// call watches the tries of one call.
type call struct {
	mu sync.Mutex
	// unanswered: of a try that came to no answer, or to one that leaves open whether it took effect. When the last try is
	// judged, what the ones before it may have done counts.
	unanswered bool
	failed     error // of the newest try
}

// watch returns a context for one call, and what will be known of its tries.
func watch(ctx context.Context) (context.Context, *call) {
	c := &call{}
	return context.WithValue(ctx, callKey{}, c), c
}

func (c *call) after(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.failed != nil && !answered(c.failed) {
		c.unanswered = true
	}
	c.failed = err
}

// doubtful tells whether a try before the last one may have taken effect.
func (c *call) doubtful() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.unanswered
}

// answered tells whether the far side said that it did nothing.
func answered(err error) bool {
	s := status(err)
	return s >= 400 && s < 500 && s != http.StatusRequestTimeout
}

// refusal tells whether the far side did all that it was asked to, and the answer is no.
func refusal(err error) bool {
	s := status(err)
	return s == http.StatusPreconditionFailed || s == http.StatusNotFound || code(err) == "ConditionalCheckFailedException"
}

var throttles = retry.ThrottleErrorCode{Codes: throttleCodes()}

func throttleCodes() map[string]struct{} {
	codes := maps.Clone(retry.DefaultThrottleErrorCodes)
	codes["ServiceUnavailable"] = struct{}{} // S3's 503 beside SlowDown
	return codes
}

func throttled(err error) bool {
	return err != nil && throttles.IsErrorThrottle(err) == aws.TrueTernary
}

// status is the HTTP status of the answer in err, or 0.
func status(err error) int {
	var re *awshttp.ResponseError
	if errors.As(err, &re) {
		return re.HTTPStatusCode()
	}
	return 0
}

// code is the service's name for an error, or empty.
func code(err error) string {
	var ae smithy.APIError
	if errors.As(err, &ae) {
		return ae.ErrorCode()
	}
	return ""
}
