//! How a provider's refusal is read.
//!
//! A status says little: 429 may be this account's rate, its balance, its plan, or a model that everybody wants at
//! once. So a code in the body is believed first, then what the message says, then the status. Sources: GLM's list of
//! codes (docs.bigmodel.cn "API 错误码", docs.z.ai "Errors"), Kimi's (platform.moonshot.ai "Error codes"), OpenAI's
//! ("Error codes"), Anthropic's ("Errors").

use std::time::{Duration, SystemTime};

use http::{HeaderMap, StatusCode, header::RETRY_AFTER};
use jiff::{Timestamp, civil, tz::Offset};
use serde_json::Value;

use super::{
    fault::{Fault, FaultKind, ProviderError, Retry},
    json::brief,
};
use crate::limit::{
    ERROR_BODY_MAX_BYTES, FAULT_NAME_MAX_BYTES, FAULT_WORDS_MAX_BYTES, PARK_MAX, PARK_UNTOLD,
    RETRY_AFTER_MAX,
};

/// What there is to judge by.
pub(super) struct Judge<'a> {
    error: ProviderError,
    status: Option<StatusCode>,
    headers: Option<&'a HeaderMap>,
    now: Option<SystemTime>,
}

impl<'a> Judge<'a> {
    pub(super) fn of_answer(
        status: StatusCode,
        headers: &'a HeaderMap,
        body: &[u8],
        now: SystemTime,
    ) -> Self {
        let error = ProviderError::of_body(body).unwrap_or_default();
        Self { error, status: Some(status), headers: Some(headers), now: Some(now) }
    }

    /// An error inside an answer that had status 200: there are no headers worth reading.
    pub(super) fn of_error(error: ProviderError) -> Self {
        Self { error, status: None, headers: None, now: None }
    }

    pub(super) fn fault(self) -> Fault {
        let mut fault = self
            .by_number()
            .or_else(|| self.by_word(self.error.code.as_deref()?))
            .or_else(|| self.by_message())
            .or_else(|| self.by_word(self.error.kind.as_deref()?))
            .unwrap_or_else(|| self.by_status());
        fault.after = self.retry_after();
        fault.status = self.status;
        fault.words = match (self.error.message.is_empty(), self.status) {
            (false, _) => self.error.message,
            (true, Some(status)) => format!("the provider answered {status}"),
            (true, None) => "the provider sent an error without words".to_owned(),
        };
        fault.code = self.error.code.or(self.error.kind);
        fault.param = self.error.param;
        fault
    }

    /// GLM's codes: four digits, which no other provider uses in `error.code`.
    fn by_number(&self) -> Option<Fault> {
        let code: u32 = self.error.code.as_deref().filter(|code| code.len() == 4)?.parse().ok()?;
        let parked = || Fault {
            park: Some(self.reset_in_message().unwrap_or(PARK_UNTOLD)),
            retry: Retry::Next,
            ..fault(FaultKind::RateLimited)
        };
        Some(match code {
            1000..=1004 | 1100 | 1110..=1112 | 1120 | 1121 | 1220 => fault(FaultKind::Auth),
            1113 | 1309 => fault(FaultKind::Billing),
            1210 | 1213..=1215 | 1231 => fault(FaultKind::BadRequest),
            1211 | 1221 | 1222 | 1311 => fault(FaultKind::NotFound),
            // The model is there, but not for what this client asks of it (embeddings, say): no reason to keep it from
            // everybody else, nor from asking another target.
            1212 => Fault { retry: Retry::Next, ..fault(FaultKind::BadRequest) },
            1200 | 1230 | 1234 => fault(FaultKind::ServerError),
            1261 => fault(FaultKind::TooLong),
            1300 | 1301 => fault(FaultKind::Refused),
            1302 => Fault { crowded: true, ..fault(FaultKind::RateLimited) },
            1303 => fault(FaultKind::RateLimited),
            1304 | 1308 | 1310 | 1313 => parked(),
            1305 | 1312 => fault(FaultKind::Overloaded),
            _ => return None,
        })
    }

    /// The words of OpenAI, Anthropic, Kimi, Azure, Qwen, llama.cpp in `code` or `type`.
    fn by_word(&self, word: &str) -> Option<Fault> {
        Some(fault(match word {
            "context_length_exceeded"
            | "string_above_max_length"
            | "request_too_large"
            | "exceed_context_size_error" => FaultKind::TooLong,
            "content_filter"
            | "content_policy_violation"
            | "content_policy_violation_error"
            | "ResponsibleAIPolicyViolation"
            | "data_inspection_failed"
            | "cyber_policy_violation" => FaultKind::Refused,
            "insufficient_quota"
            | "exceeded_current_quota_error"
            | "billing_error"
            | "billing_not_active"
            | "billing_hard_limit_reached"
            | "insufficient_balance"
            | "access_terminated_error" => FaultKind::Billing,
            "engine_overloaded_error" | "overloaded_error" | "server_overloaded" | "slow_down" => {
                FaultKind::Overloaded
            }
            "rate_limit_exceeded" | "rate_limit_error" | "rate_limit_reached_error" => {
                return Some(self.rate());
            }
            "invalid_api_key"
            | "authentication_error"
            | "invalid_authentication_error"
            | "incorrect_api_key_error"
            | "account_deactivated"
            | "permission_error"
            | "permission_denied_error" => FaultKind::Auth,
            "model_not_found" | "not_found_error" | "resource_not_found_error" => {
                FaultKind::NotFound
            }
            "timeout_error" | "network_error" => FaultKind::ServerError,
            _ => return None,
        }))
    }

    /// What only the message tells. Nothing is taken from it that a status of another class contradicts.
    fn by_message(&self) -> Option<Fault> {
        let message = self.error.message.to_ascii_lowercase();
        let says = |words: &[&str]| words.iter().any(|word| message.contains(word));
        match self.status.map(|status| status.as_u16()) {
            Some(400 | 413 | 422) | None if says(&TOO_LONG) => Some(fault(FaultKind::TooLong)),
            // Gemini says of a mere rate that a quota is exceeded, and when to come back.
            Some(400 | 402 | 403 | 429) | None if says(&NO_BALANCE) => {
                Some(if in_message(&message).is_some() {
                    self.rate()
                } else {
                    fault(FaultKind::Billing)
                })
            }
            Some(400 | 403) | None
                if says(&["high risk", "content management policy", "content policy"]) =>
            {
                Some(fault(FaultKind::Refused))
            }
            Some(429) if says(&["overloaded", "at capacity", "model is busy"]) => {
                Some(fault(FaultKind::Overloaded))
            }
            _ => None,
        }
    }

    fn by_status(&self) -> Fault {
        let Some(status) = self.status else { return fault(FaultKind::ServerError) };
        if status == StatusCode::TOO_MANY_REQUESTS {
            return self.rate();
        }
        fault(match status.as_u16() {
            401 | 403 => FaultKind::Auth,
            402 => FaultKind::Billing,
            404 | 405 | 410 => FaultKind::NotFound,
            // The provider gave up waiting for us or for itself; SDKs try again too.
            408 | 409 | 425 => FaultKind::ServerError,
            413 => FaultKind::TooLong,
            503 | 529 => FaultKind::Overloaded,
            400..=499 => FaultKind::BadRequest,
            500..=599 => FaultKind::ServerError,
            // A redirect, too, which is not followed: a wrong base URL, or a proxy's whim.
            _ => FaultKind::Malformed,
        })
    }

    /// Too many requests or tokens; or too many at once, which is another remedy; or more tokens in this one than the
    /// account has in a minute, for which there is none.
    fn rate(&self) -> Fault {
        let message = self.error.message.to_ascii_lowercase();
        let retry = if message.contains("request too large") { Retry::Next } else { Retry::Same };
        Fault { crowded: message.contains("concurren"), retry, ..fault(FaultKind::RateLimited) }
    }

    /// `retry-after-ms`, `retry-after` as seconds or as a date, or what the message says ("try again in 20s").
    fn retry_after(&self) -> Option<Duration> {
        let header = |name: &str| self.headers?.get(name)?.to_str().ok().map(str::trim);
        let millis = || seconds(header("retry-after-ms")?.parse::<f64>().ok()? / 1000.0);
        let plain = || seconds(header(RETRY_AFTER.as_str())?.parse().ok()?);
        let date = || {
            let date = header(RETRY_AFTER.as_str())?;
            let zoned = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(date).ok()?;
            Some(SystemTime::from(zoned).duration_since(self.now?).unwrap_or_default())
        };
        let after =
            millis().or_else(plain).or_else(date).or_else(|| in_message(&self.error.message))?;
        Some(after.min(RETRY_AFTER_MAX))
    }

    /// The time that GLM names when an allowance is used up: "Your limit will reset at 2026-08-25 07:41:44", which is
    /// the time of Beijing. `None` if there is none, or it has passed.
    fn reset_in_message(&self) -> Option<Duration> {
        let message = self.error.message.as_str();
        let at = message.char_indices().map(|(at, _)| at).find_map(|at| {
            let text = message.get(at..at + "2026-08-25 07:41:44".len())?;
            civil::DateTime::strptime("%Y-%m-%d %H:%M:%S", text).ok()
        })?;
        let at: Timestamp = Offset::constant(8).to_timestamp(at).ok()?;
        let left = SystemTime::from(at).duration_since(self.now?).ok()?;
        Some(left.min(PARK_MAX))
    }
}

const TOO_LONG: [&str; 11] = [
    "maximum context length",
    "context length exceeded",
    "context window",
    "prompt is too long",
    "input is too long",
    "exceeded model token limit",
    "input length and `max_tokens` exceed",
    "range of input length",
    "input token count",
    "available context size",
    "reduce the length of the messages",
];

const NO_BALANCE: [&str; 7] = [
    "credit balance is too low",
    "insufficient balance",
    "insufficient credit",
    "exceeded your current quota",
    "account is suspended",
    "payment is past due",
    "for this billing cycle",
];

impl ProviderError {
    /// The error in a body or an event, in whichever of the forms that are about. `None` if there is none: not JSON, or
    /// not an object.
    pub(super) fn of_body(body: &[u8]) -> Option<Self> {
        let value: Value =
            serde_json::from_slice(body.get(..ERROR_BODY_MAX_BYTES).unwrap_or(body)).ok()?;
        let outer = value.as_object()?;
        // `{"error": {…}}` of OpenAI, Anthropic, GLM, Kimi; `{"error": "…"}` of Ollama; fields without an object around
        // them of vLLM and others.
        let inner = outer.get("error").and_then(Value::as_object).unwrap_or(outer);
        let text = |key: &str| match inner.get(key)? {
            Value::String(text) if !text.is_empty() => Some(text.clone()),
            Value::Number(number) => Some(number.to_string()),
            _ => None,
        };
        let message = text("message")
            .or_else(|| text("msg"))
            .or_else(|| outer.get("error")?.as_str().map(str::to_owned))
            .or_else(|| {
                outer
                    .get("detail")
                    .map(|detail| detail.as_str().map_or_else(|| detail.to_string(), str::to_owned))
            });
        // Records keep them.
        let name = |key: &str| text(key).map(|text| brief(&text, FAULT_NAME_MAX_BYTES));
        Some(Self {
            kind: name("type"),
            code: name("code"),
            message: brief(&message.unwrap_or_default(), FAULT_WORDS_MAX_BYTES),
            param: name("param"),
        })
    }
}

fn fault(kind: FaultKind) -> Fault {
    Fault::new(kind, "")
}

/// Seconds of a header or a message; below zero and nonsense is nothing.
fn seconds(seconds: f64) -> Option<Duration> {
    Duration::try_from_secs_f64(seconds).ok()
}

/// "try again in 20s", "in 6m0s", "in 250ms", "after 1 seconds".
fn in_message(message: &str) -> Option<Duration> {
    let rest =
        ["try again in ", "try again after ", "retry in "].into_iter().find_map(|words| {
            Some(&message[message.to_ascii_lowercase().find(words)? + words.len()..])
        })?;
    let mut rest = rest;
    let mut sum = None;
    loop {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let Ok(number) = rest[..digits].parse::<f64>() else { return sum };
        let behind = rest[digits..].trim_start();
        let unit = behind.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(behind.len());
        let scale = match &behind[..unit] {
            "ms" => 0.001,
            "s" | "second" | "seconds" => 1.0,
            "m" | "minute" | "minutes" => 60.0,
            "h" | "hour" | "hours" => 3600.0,
            _ => return sum,
        };
        sum = Some(sum.unwrap_or_default() + seconds(number * scale)?.min(RETRY_AFTER_MAX));
        rest = &behind[unit..];
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::{
        super::fault::{Blame, Timer, judge},
        *,
    };

    /// 2026-08-25 00:00:00 UTC.
    const NOW: u64 = 1_787_616_000;

    fn judged(status: u16, headers: &[(&'static str, &'static str)], body: &str) -> Fault {
        let headers = headers
            .iter()
            .map(|(k, v)| (k.parse().unwrap(), HeaderValue::from_static(v)))
            .collect();
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(NOW);
        judge(StatusCode::from_u16(status).unwrap(), &headers, body.as_bytes(), now)
    }

    /// One row for each fault that a provider is known to have worded.
    #[test]
    fn refusals_are_read_as_their_providers_mean_them() {
        use self::{Blame::*, FaultKind::*, Retry::*};
        let glm = |code: &str| format!(r#"{{"error":{{"code":"{code}","message":"某种错误"}}}}"#);
        let openai = |kind: &str, code: &str| {
            format!(r#"{{"error":{{"message":"no","type":"{kind}","param":null,"code":{code}}}}}"#)
        };
        let anthropic = |kind: &str| {
            format!(r#"{{"type":"error","error":{{"type":"{kind}","message":"no"}}}}"#)
        };
        let says = |message: &str| {
            format!(r#"{{"error":{{"message":"{message}","type":"invalid_request_error"}}}}"#)
        };
        let rows = [
            (429, glm("1302"), RateLimited, Same, Account),
            (429, glm("1303"), RateLimited, Same, Account),
            (429, glm("1304"), RateLimited, Next, Account),
            (429, glm("1308"), RateLimited, Next, Account),
            (429, glm("1310"), RateLimited, Next, Account),
            (429, glm("1305"), Overloaded, Same, Provider),
            (429, glm("1312"), Overloaded, Same, Provider),
            (429, glm("1113"), Billing, Next, Account),
            (429, glm("1112"), Auth, Next, Account),
            (429, glm("1121"), Auth, Next, Account),
            (401, glm("1002"), Auth, Next, Account),
            (400, glm("1301"), Refused, Never, Client),
            (400, glm("1261"), TooLong, Next, Client),
            (400, glm("1211"), NotFound, Next, Account),
            (400, glm("1212"), BadRequest, Next, Client),
            (400, glm("1214"), BadRequest, Never, Client),
            (500, glm("9999"), ServerError, Same, Provider),
            (
                429,
                r#"{"error":{"code":1302,"message":"a number"}}"#.into(),
                RateLimited,
                Same,
                Account,
            ),
            (429, openai("engine_overloaded_error", "null"), Overloaded, Same, Provider),
            (429, openai("rate_limit_reached_error", "null"), RateLimited, Same, Account),
            (429, openai("exceeded_current_quota_error", "null"), Billing, Next, Account),
            (400, openai("content_filter", "null"), Refused, Never, Client),
            (429, openai("insufficient_quota", r#""insufficient_quota""#), Billing, Next, Account),
            (429, openai("tokens", r#""rate_limit_exceeded""#), RateLimited, Same, Account),
            (
                400,
                openai("invalid_request_error", r#""context_length_exceeded""#),
                TooLong,
                Next,
                Client,
            ),
            (400, openai("invalid_request_error", "null"), BadRequest, Never, Client),
            (404, openai("invalid_request_error", r#""model_not_found""#), NotFound, Next, Account),
            (401, openai("invalid_request_error", r#""invalid_api_key""#), Auth, Next, Account),
            (529, anthropic("overloaded_error"), Overloaded, Same, Provider),
            (429, anthropic("rate_limit_error"), RateLimited, Same, Account),
            (500, anthropic("api_error"), ServerError, Same, Provider),
            (413, anthropic("request_too_large"), TooLong, Next, Client),
            (400, anthropic("invalid_request_error"), BadRequest, Never, Client),
            (
                400,
                says("prompt is too long: 203000 tokens > 200000 maximum"),
                TooLong,
                Next,
                Client,
            ),
            (
                400,
                says("This model's maximum context length is 8192 tokens"),
                TooLong,
                Next,
                Client,
            ),
            (400, says("Your credit balance is too low to access the API"), Billing, Next, Account),
            (
                400,
                says("The request was rejected because it was considered high risk"),
                Refused,
                Never,
                Client,
            ),
            (429, says("something"), RateLimited, Same, Account),
            (
                429,
                says("Request too large for gpt-4 on tokens per min: Limit 3, Requested 4"),
                RateLimited,
                Next,
                Account,
            ),
            (429, says("You exceeded your current quota, check your plan"), Billing, Next, Account),
            (
                429,
                says("You exceeded your current quota. Please retry in 36.2s."),
                RateLimited,
                Same,
                Account,
            ),
            (
                403,
                openai("permission_error", "null")
                    .replace("no", "usage limit for this billing cycle"),
                Billing,
                Next,
                Account,
            ),
            (403, openai("permission_error", "null"), Auth, Next, Account),
            (404, r#"{"error":"model 'x' not found"}"#.into(), NotFound, Next, Account),
            (
                422,
                r#"{"detail":[{"loc":["body","n"],"msg":"bad"}]}"#.into(),
                BadRequest,
                Never,
                Client,
            ),
            (502, "<html>Bad Gateway</html>".into(), ServerError, Same, Provider),
            (503, String::new(), Overloaded, Same, Provider),
            (408, String::new(), ServerError, Same, Provider),
            (402, String::new(), Billing, Next, Account),
            (302, String::new(), Malformed, Same, Provider),
            (204, String::new(), Malformed, Same, Provider),
        ];
        for (status, body, kind, retry, blames) in rows {
            let found = judged(status, &[], &body);
            assert_eq!(
                (found.kind, found.retry, found.blames),
                (kind, retry, blames),
                "{status} {body}"
            );
            assert!(!found.words.is_empty());
        }
    }

    #[test]
    fn too_much_at_once_is_told_from_too_often() {
        assert!(judged(429, &[], r#"{"error":{"code":"1302","message":""}}"#).crowded);
        assert!(!judged(429, &[], r#"{"error":{"code":"1303","message":""}}"#).crowded);
        let kimi = r#"{"error":{"message":"Your account reached max organization concurrency: 1, please try again after 1 seconds","type":"rate_limit_reached_error"}}"#;
        let kimi = judged(429, &[], kimi);
        assert!(kimi.crowded);
        assert_eq!(kimi.after, Some(Duration::from_secs(1)));
    }

    #[test]
    fn an_allowance_that_is_used_up_parks_until_it_is_renewed() {
        let body = |at: &str| {
            format!(
                r#"{{"error":{{"code":"1308","message":"已达到 5 小时的使用上限。您的限额将在 {at} 重置。"}}}}"#
            )
        };
        // Eight in the morning in Beijing is midnight UTC.
        assert_eq!(
            judged(429, &[], &body("2026-08-25 09:30:00")).park,
            Some(Duration::from_secs(5400))
        );
        assert_eq!(judged(429, &[], &body("2026-08-25 07:00:00")).park, Some(PARK_UNTOLD));
        assert_eq!(judged(429, &[], &body("2027-08-25 07:00:00")).park, Some(PARK_MAX));
        assert_eq!(judged(429, &[], &body("tomorrow")).park, Some(PARK_UNTOLD));
    }

    #[test]
    fn retry_after_is_read_in_all_its_forms() {
        let after = |headers: &[(&'static str, &'static str)]| judged(429, headers, "").after;
        let seconds = |seconds| Some(Duration::from_secs_f64(seconds));
        assert_eq!(after(&[("retry-after", "2")]), seconds(2.0));
        assert_eq!(after(&[("retry-after", "0.5")]), seconds(0.5));
        assert_eq!(after(&[("retry-after-ms", "1500"), ("retry-after", "9")]), seconds(1.5));
        assert_eq!(after(&[("retry-after", "Tue, 25 Aug 2026 00:00:30 GMT")]), seconds(30.0));
        assert_eq!(after(&[("retry-after", "Mon, 24 Aug 2026 00:00:30 GMT")]), seconds(0.0));
        assert_eq!(after(&[("retry-after", "-1")]), None);
        assert_eq!(after(&[("retry-after", "soon")]), None);
        assert_eq!(after(&[("retry-after", "1e300")]), None);
        assert_eq!(after(&[("retry-after", "9999999")]), Some(RETRY_AFTER_MAX));
        assert_eq!(in_message("Please try again in 6m0.5s. Visit"), seconds(360.5));
        assert_eq!(in_message("Please try again in 250ms."), seconds(0.25));
        assert_eq!(in_message("Try again in a while"), None);
    }

    #[test]
    fn a_timer_says_whom_to_ask_next() {
        let fault = Fault::timeout(Timer::FirstContent, Duration::from_millis(1500));
        assert_eq!(
            (fault.retry, fault.blames, fault.kind.name()),
            (Retry::Next, Blame::Provider, "timeout")
        );
        assert_eq!(fault.words, "first-content timeout after 1500 ms");
    }

    #[test]
    fn a_message_is_cut_between_characters() {
        let body = format!(r#"{{"error":{{"message":"{}\nx"}}}}"#, "é".repeat(300));
        assert_eq!(judged(500, &[], &body).words, "é".repeat(250));
    }

    #[test]
    fn what_a_provider_calls_its_error_is_cut() {
        let long = "x".repeat(10_000);
        let cut = Some("x".repeat(FAULT_NAME_MAX_BYTES));
        let found =
            judged(500, &[], &format!(r#"{{"error":{{"code":"{long}","param":"{long}"}}}}"#));
        assert_eq!((&found.code, &found.param), (&cut, &cut));
        let found = judged(500, &[], &format!(r#"{{"error":{{"type":"{long}"}}}}"#));
        assert_eq!(found.code, cut);
    }
}
