// What a gateway is measured under, one after the other while it runs. "direct" is the same without any gateway.

/**
 * `requests` at a time `concurrency`; before them a fiftieth as many that do not count. `added` are the figures of
 * which those of the provider alone are taken away.
 */
export const WORKLOADS = {
  plain: { requests: 2000, concurrency: 1, stream: false, added: ["request_us.all.p50", "request_us.all.p99"] },
  stream: { requests: 1000, concurrency: 1, stream: true, added: ["request_us.first_content.p50", "request_us.first_content.p99"] },
  "plain-8": { requests: 8000, concurrency: 8, stream: false, added: [] },
  "stream-8": { requests: 4000, concurrency: 8, stream: true, added: [] },
};
