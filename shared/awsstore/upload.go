package awsstore

import (
	"context"
	"io"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/feature/s3/transfermanager"
	"github.com/aws/aws-sdk-go-v2/feature/s3/transfermanager/types"
	"github.com/aws/aws-sdk-go-v2/service/s3"
)

const (
	// partSize is the least that S3 takes. An upload holds about five parts in memory.
	partSize = 5 << 20
	parallel = 2
	// abortWithin is for the last word of an upload that failed, also when its context has ended.
	abortWithin = 10 * time.Second

	contentType = "application/octet-stream"
	disposition = "attachment"
)

// uploads sends a stream of any length as one object that must not exist yet, or nothing at all. It stands between us and the
// transfer manager, which is not yet at version 1.
type uploads interface {
	upload(ctx context.Context, key string, metadata map[string]string, r io.Reader) error
}

type manager struct {
	client *transfermanager.Client
	bucket string
}

func newUploads(client *s3.Client, bucket string) uploads {
	return &manager{bucket: bucket, client: transfermanager.New(client, func(o *transfermanager.Options) {
		o.PartSizeBytes, o.MultipartUploadThreshold, o.Concurrency = partSize, partSize, parallel
		o.FailTimeout = abortWithin
		o.ChecksumAlgorithm = types.ChecksumAlgorithmSha256
	})}
}

func (m *manager) upload(ctx context.Context, key string, metadata map[string]string, r io.Reader) error {
	_, err := m.client.UploadObject(ctx, &transfermanager.UploadObjectInput{
		Bucket: &m.bucket, Key: &key, Body: r, Metadata: metadata, IfNoneMatch: aws.String("*"),
		ContentType: aws.String(contentType), ContentDisposition: aws.String(disposition),
	})
	return err
}
