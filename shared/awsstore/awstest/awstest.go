// Package awstest makes a table, a bucket and a queue for a test, on the servers that AWS_ENDPOINT_URL_DYNAMODB, _S3 and _SQS
// name: those that `make test-aws` starts, or any others that speak for AWS.
package awstest

import (
	"cmp"
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	ddbtypes "github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	s3types "github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	sqstypes "github.com/aws/aws-sdk-go-v2/service/sqs/types"
	"github.com/aws/smithy-go/logging"

	"github.com/deltadesk/deltadesk/shared/awsstore"
	"github.com/deltadesk/deltadesk/shared/delta"
	"github.com/deltadesk/deltadesk/shared/delta/deltatest"
)

// AWS returns the configuration that reaches the servers. Without servers the test fails: a suite that skips itself proves
// nothing.
func AWS(t testing.TB) aws.Config {
	t.Helper()
	for _, name := range []string{"AWS_ENDPOINT_URL_DYNAMODB", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL_SQS"} {
		if os.Getenv(name) == "" {
			t.Fatalf("%s is not set; run `make test-aws`, which starts servers and says where they are", name)
		}
	}
	cfg, err := config.LoadDefaultConfig(t.Context(), config.WithLogger(logging.Nop{}))
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

// Stack makes a table, a bucket and a queue of its own for the test, as the template does.
func Stack(t testing.TB, cfg aws.Config) awsstore.Config {
	t.Helper()
	name := "t" + strings.ToLower(rand.Text())
	tables := dynamodb.NewFromConfig(cfg)
	if _, err := tables.CreateTable(t.Context(), &dynamodb.CreateTableInput{
		TableName: &name, BillingMode: ddbtypes.BillingModePayPerRequest,
		AttributeDefinitions: []ddbtypes.AttributeDefinition{
			{AttributeName: aws.String(awsstore.PartKey), AttributeType: ddbtypes.ScalarAttributeTypeS},
			{AttributeName: aws.String(awsstore.SortKey), AttributeType: ddbtypes.ScalarAttributeTypeS},
		},
		KeySchema: []ddbtypes.KeySchemaElement{
			{AttributeName: aws.String(awsstore.PartKey), KeyType: ddbtypes.KeyTypeHash},
			{AttributeName: aws.String(awsstore.SortKey), KeyType: ddbtypes.KeyTypeRange},
		},
	}); err != nil {
		t.Fatalf("make a table: %v", err)
	}
	t.Cleanup(func() {
		if _, err := tables.DeleteTable(context.WithoutCancel(t.Context()), &dynamodb.DeleteTableInput{TableName: &name}); err != nil {
			t.Errorf("delete the table: %v", err)
		}
	})
	bucket := &s3.CreateBucketInput{Bucket: &name}
	if cfg.Region != "us-east-1" {
		bucket.CreateBucketConfiguration = &s3types.CreateBucketConfiguration{LocationConstraint: s3types.BucketLocationConstraint(cfg.Region)}
	}
	if _, err := s3.NewFromConfig(cfg, func(o *s3.Options) { o.UsePathStyle = true }).CreateBucket(t.Context(), bucket); err != nil {
		t.Fatalf("make a bucket: %v", err)
	}
	queue, err := sqs.NewFromConfig(cfg).CreateQueue(t.Context(), &sqs.CreateQueueInput{QueueName: &name})
	if err != nil {
		t.Fatalf("make a queue: %v", err)
	}
	return awsstore.Config{Table: name, Bucket: name, QueueURL: *queue.QueueUrl, PathStyle: true}
}

// Open opens a store.
func Open(t testing.TB, cfg aws.Config, c awsstore.Config) *awsstore.Store {
	t.Helper()
	s, err := awsstore.Open(t.Context(), cfg, c)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// Stores opens a store for deltatest's suite.
func Stores(t testing.TB, cfg aws.Config, c awsstore.Config) deltatest.Stores {
	t.Helper()
	s := Open(t, cfg, c)
	return deltatest.Stores{
		Rows: s.Rows(), Objects: s.Objects(), Queue: NewReceiver(s, cfg, c),
		Reopen: func(t testing.TB) deltatest.Stores { return Stores(t, cfg, c) },
	}
}

// Receiver is a queue with its receiving end.
type Receiver struct {
	delta.Queue
	client *sqs.Client
	url    string
}

// NewReceiver returns the queue of s with its receiving end.
func NewReceiver(s *awsstore.Store, cfg aws.Config, c awsstore.Config) *Receiver {
	return &Receiver{Queue: s.Queue(), client: sqs.NewFromConfig(cfg), url: c.QueueURL}
}

// Receive waits for messages and returns up to max of them; they count as handled.
func (r *Receiver) Receive(ctx context.Context, max int) ([]delta.Message, error) {
	for {
		out, err := r.client.ReceiveMessage(ctx, &sqs.ReceiveMessageInput{QueueUrl: &r.url, MaxNumberOfMessages: int32(min(max, 10)), WaitTimeSeconds: 2})
		if err != nil {
			return nil, fmt.Errorf("receive: %w", cmp.Or(ctx.Err(), err))
		}
		var ms []delta.Message
		var done []sqstypes.DeleteMessageBatchRequestEntry
		for _, m := range out.Messages {
			parsed, err := awsstore.ParseMessage(*m.Body)
			if err != nil {
				return nil, fmt.Errorf("receive: %w", err)
			}
			ms = append(ms, parsed)
			done = append(done, sqstypes.DeleteMessageBatchRequestEntry{Id: m.MessageId, ReceiptHandle: m.ReceiptHandle})
		}
		if len(ms) == 0 {
			continue
		}
		if _, err := r.client.DeleteMessageBatch(ctx, &sqs.DeleteMessageBatchInput{QueueUrl: &r.url, Entries: done}); err != nil {
			return nil, fmt.Errorf("receive: %w", cmp.Or(ctx.Err(), err))
		}
		return ms, nil
	}
}
