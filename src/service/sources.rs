//! How sources are fetched and their documents converted, as configured.

use std::{path::PathBuf, time::Duration};

use crate::{
    auto_sync::QueueOptions,
    aws::AwsCredentials,
    config::Config,
    fetch::{
        Egress, FetchError, GithubAppOptions, GithubApps, GithubOptions,
        s3::S3Options,
        web::{CrawlOptions, CrawlShared},
    },
    parse::{DescribeError, ImageDescriber, ImageDescriberOptions, Parser, ParserOptions},
    uploads::{BucketOptions, UploadError, UploadStore},
};

/// Makes the converter of documents as configured.
///
/// # Errors
/// See [`ImageDescriber::new`].
pub fn parser(config: &Config) -> Result<Parser, DescribeError> {
    let parse = &config.parse;
    let descriptions = &parse.image_descriptions;
    let describer = descriptions.base().map(|url| {
        ImageDescriber::new(ImageDescriberOptions {
            url,
            model: descriptions.model.clone(),
            api_key: descriptions
                .api_key
                .non_empty()
                .map(|_| descriptions.api_key.clone()),
            prompt: descriptions.prompt.clone(),
            timeout: Duration::from_secs(descriptions.timeout_seconds),
            max_bytes: descriptions.max_bytes,
            concurrency: descriptions.concurrency,
        })
    });
    let options = ParserOptions {
        program: None,
        max_memory_bytes: parse.max_memory_bytes,
        max_cpu: Duration::from_secs(parse.max_cpu_seconds),
        timeout: Duration::from_secs(parse.timeout_seconds),
        max_output_bytes: parse.max_output_bytes,
        max_pages: parse.max_pages,
        concurrency: parse.concurrency,
    };
    Ok(Parser::new(options, describer.transpose()?))
}

/// Where whatever is fetched lies for as long as it is worked on.
pub(super) fn scratch_root(config: &Config) -> PathBuf {
    match config.worker.directory.as_os_str().is_empty() {
        true => std::env::temp_dir().join("chroma-sync"),
        false => PathBuf::from(&config.worker.directory),
    }
}

/// How repositories are fetched. Removes what processes that died left in the directory.
pub(super) fn github_options(config: &Config, egress: Egress) -> Result<GithubOptions, FetchError> {
    let mut options = GithubOptions::new(config.github.git_url.clone(), scratch_root(config));
    options.token = config
        .github
        .token
        .non_empty()
        .map(|_| config.github.token.clone());
    options.max_file_bytes = config.github.max_file_bytes;
    options.max_repository_bytes = config.github.max_repository_bytes;
    options.timeout = Duration::from_secs(config.github.fetch_timeout_seconds);
    options.egress = egress;
    crate::fetch::remove_stale(&options.directory)?;
    Ok(options)
}

/// Who makes the tokens of GitHub Apps.
pub(super) fn github_apps(config: &Config, egress: Egress) -> Result<GithubApps, FetchError> {
    let mut options = GithubAppOptions::new(config.github.api_url.clone());
    options.egress = egress;
    GithubApps::new(options)
}

/// How buckets are read.
pub(super) fn s3_options(config: &Config, egress: Egress) -> S3Options {
    let s3 = &config.s3;
    let mut options = S3Options::new(scratch_root(config));
    options.endpoint_url = s3.endpoint();
    options.path_style = s3.path_style;
    options.max_object_bytes = s3.max_object_bytes;
    options.connect_timeout = Duration::from_secs(s3.connect_timeout_seconds);
    options.idle_timeout = Duration::from_secs(s3.idle_timeout_seconds);
    options.egress = egress;
    options
}

/// Where uploaded files lie.
///
/// # Errors
/// See [`UploadError`].
pub fn upload_store(config: &Config) -> Result<UploadStore, UploadError> {
    let uploads = &config.uploads;
    if uploads.s3_bucket.is_empty() {
        return UploadStore::in_directory(&uploads.directory);
    }
    let secret = uploads
        .s3_secret_access_key
        .non_empty()
        .map(|_| uploads.s3_secret_access_key.clone());
    UploadStore::in_bucket(BucketOptions {
        bucket: uploads.s3_bucket.clone(),
        region: uploads.s3_region.clone(),
        endpoint_url: uploads.endpoint(),
        access_key: secret.map(|secret| (uploads.s3_access_key_id.clone(), secret)),
        path_style: uploads.s3_path_style,
    })
}

/// The queue of events about objects; none where none is configured.
pub(super) fn queue_options(config: &Config) -> Option<QueueOptions> {
    let sqs = &config.sqs;
    Some(QueueOptions {
        queue_url: sqs.queue()?,
        endpoint_url: sqs.endpoint(),
        region: sqs.queue_region()?,
        credentials: AwsCredentials {
            access_key_id: sqs.access_key_id.clone(),
            secret_access_key: sqs.secret_access_key.clone(),
            session_token: sqs.session_token.non_empty().map(|_| sqs.session_token.clone()),
        },
        wait: sqs.wait(),
        visibility_timeout: sqs.visibility_timeout(),
        max_messages: sqs.max_messages,
    })
}

/// How web sites are crawled.
pub(super) fn crawl_options(config: &Config, egress: Egress) -> CrawlOptions {
    let web = &config.web;
    let mut options = CrawlOptions::new(scratch_root(config));
    options.user_agent.clone_from(&web.user_agent);
    options.obey_robots = web.obey_robots;
    options.max_page_bytes = web.max_page_bytes;
    options.max_pages = web.max_pages;
    options.max_urls = web.max_urls;
    options.max_crawl_bytes = web.max_crawl_bytes;
    options.parallel = web.max_requests_per_host;
    options.delay = Duration::from_millis(web.delay_milliseconds);
    options.max_crawl_delay = Duration::from_secs(web.max_crawl_delay_seconds);
    options.request_timeout = Duration::from_secs(web.request_timeout_seconds);
    options.crawl_timeout = Duration::from_secs(web.crawl_timeout_seconds);
    options.max_redirects = web.max_redirects;
    options.attempts = web.attempts;
    options.backoff = Duration::from_millis(web.backoff_milliseconds);
    options.max_wait = Duration::from_secs(web.max_wait_seconds);
    options.shared = CrawlShared::new(web.max_requests_per_host);
    options.egress = egress;
    options
}
