package awsstore

import (
	"cmp"
	"context"
	"errors"
	"io"
	"net/http"
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
	return &manager{bucket: bucket, client: transfermanager.New(quiet{client}, func(o *transfermanager.Options) {
		o.PartSizeBytes, o.MultipartUploadThreshold, o.Concurrency = partSize, partSize, parallel
		o.FailTimeout = abortWithin
		o.ChecksumAlgorithm = types.ChecksumAlgorithmSha256
	})}
}

func (m *manager) upload(ctx context.Context, key string, metadata map[string]string, r io.Reader) error {
	var last error
	_, err := m.client.UploadObject(context.WithValue(ctx, lastKey{}, &last), &transfermanager.UploadObjectInput{
		Bucket: &m.bucket, Key: &key, Body: r, Metadata: metadata, IfNoneMatch: aws.String("*"),
		ContentType: aws.String(contentType), ContentDisposition: aws.String(disposition),
	})
	return cmp.Or(err, last)
}

type lastKey struct{}

// quiet keeps the transfer manager from printing to the standard log when the last step of an upload fails, as it does where
// the key is taken: it is not told, and the upload is ended here.
type quiet struct{ *s3.Client }

func (q quiet) CompleteMultipartUpload(ctx context.Context, in *s3.CompleteMultipartUploadInput, opts ...func(*s3.Options)) (*s3.CompleteMultipartUploadOutput, error) {
	out, err := q.Client.CompleteMultipartUpload(ctx, in, opts...)
	last, ok := ctx.Value(lastKey{}).(*error)
	if err == nil || !ok {
		return out, err
	}
	*last = err
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), abortWithin)
	defer cancel()
	// Parts that stay behind are seen by nobody, and removed by the bucket's rule for abandoned uploads.
	if _, err := q.AbortMultipartUpload(ctx, &s3.AbortMultipartUploadInput{Bucket: in.Bucket, Key: in.Key, UploadId: in.UploadId}, opts...); err != nil && status(err) != http.StatusNotFound {
		*last = errors.Join(*last, err)
	}
	return &s3.CompleteMultipartUploadOutput{}, nil
}
