//! Kinds of the group `batch`.

mod cron_job;
mod indexes;
mod job;
mod job_status;
mod policies;
mod schedule;

pub(super) use cron_job::{cron_job, cron_job_warnings};
pub(super) use job::{job, job_warnings};

#[cfg(test)]
mod tests {
    use crate::strategy::Part;
    use crate::validation::tests::told;

    const TEMPLATE: &str = r#""template":{"spec":{"restartPolicy":"Never","dnsPolicy":"ClusterFirst","terminationGracePeriodSeconds":30,
        "containers":[{"name":"c","image":"i","terminationMessagePolicy":"File","imagePullPolicy":"Always"}]}}"#;

    #[test]
    fn cron_jobs_have_times() {
        let cases = [
            (r#""schedule":"* * * * *""#, ""),
            (
                r#""schedule":"60 * * * *""#,
                "spec.schedule: Invalid value: \"60 * * * *\": end of range (60) above maximum (59): 60",
            ),
            (
                r#""schedule":"TZ=UTC * * * * *""#,
                "spec.schedule: Invalid value: \"TZ=UTC * * * * *\": cannot use TZ or CRON_TZ in schedule, use timeZone field instead",
            ),
            (r#""schedule":"@daily","timeZone":"-a""#, "spec.timeZone: Invalid value: \"-a\": unknown time zone -a"),
        ];
        for (fields, expected) in cases {
            let job = format!(
                r#"{{"metadata":{{"name":"j"}},"spec":{{{fields},"concurrencyPolicy":"Allow","jobTemplate":{{"spec":{{{TEMPLATE}}}}}}}}}"#
            );
            assert_eq!(told("batch/v1", "CronJob", Part::Main, &job, None), expected, "{fields}");
        }
    }

    #[test]
    fn a_job_ends_for_a_reason() {
        let job = |status: &str| format!(r#"{{"metadata":{{"name":"j"}},"status":{{{status}}}}}"#);
        let failed = r#""conditions":[{"type":"Failed","status":"True"}],"startTime":"2020-01-01T00:00:00Z""#;
        assert_eq!(
            told("batch/v1", "Job", Part::Status, &job(failed), Some(&job(""))),
            "status.conditions: Invalid value: cannot set Failed=True condition without the FailureTarget=true condition"
        );
        assert_eq!(
            told("batch/v1", "Job", Part::Status, &job(r#""failed":1"#), Some(&job(r#""failed":2"#))),
            "status.failed: Invalid value: 1: cannot decrease the failed counter"
        );
    }
}
