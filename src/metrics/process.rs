//! What the process itself takes, under the names that all client libraries of Prometheus use, so that dashboards for any
//! program show it. Linux only: it is read from `/proc`.

use std::{fmt, time::Duration};

use procfs::process::{LimitValue, Process};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
    registry::{Registry, Unit},
};

/// Adds the metrics to a registry without a prefix.
pub fn register(registry: &mut Registry) {
    let registry = registry.sub_registry_with_prefix("process");
    // Read once: later answers of the kernel differ by a second where its clock is set.
    if let Ok(started) = started() {
        let help = "Start of the process, in seconds since 1970";
        registry.register_with_unit("start_time", help, Unit::Seconds, ConstGauge::new(started.as_secs_f64()));
    }
    registry.register_collector(Box::new(Resources));
}

/// Reads what changes at each scrape.
#[derive(Debug)]
struct Resources;

impl Collector for Resources {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        // What cannot be read is absent: zero would be taken for a measurement.
        match Reading::take() {
            Ok(reading) => reading.encode(encoder),
            Err(_) => Ok(()),
        }
    }
}

struct Reading {
    processor_time: Duration,
    resident_bytes: u64,
    virtual_bytes: u64,
    open_files: u64,
    /// None if the number is not limited.
    most_files: Option<u64>,
}

// === impl Reading ===

impl Reading {
    fn take() -> procfs::ProcResult<Self> {
        let process = Process::myself()?;
        let stat = process.stat()?;
        Ok(Self {
            processor_time: ticks(stat.utime + stat.stime),
            resident_bytes: stat.rss * procfs::page_size(),
            virtual_bytes: stat.vsize,
            open_files: process.fd_count()? as u64,
            most_files: match process.limits()?.max_open_files.soft_limit {
                LimitValue::Value(most) => Some(most),
                LimitValue::Unlimited => None,
            },
        })
    }

    fn encode(&self, mut to: DescriptorEncoder<'_>) -> fmt::Result {
        let processor_time = ConstCounter::new(self.processor_time.as_secs_f64());
        let help = "Processor time in user and kernel mode";
        processor_time.encode(to.encode_descriptor("cpu", help, Some(&Unit::Seconds), MetricType::Counter)?)?;

        let mut gauge = |name, help, unit: Option<Unit>, value: u64| {
            ConstGauge::new(value).encode(to.encode_descriptor(name, help, unit.as_ref(), MetricType::Gauge)?)
        };
        gauge("resident_memory", "Memory in use that is not swapped out", Some(Unit::Bytes), self.resident_bytes)?;
        gauge("virtual_memory", "Address space in use", Some(Unit::Bytes), self.virtual_bytes)?;
        gauge("open_fds", "Open file descriptors, connections among them", None, self.open_files)?;
        if let Some(most) = self.most_files {
            gauge("max_fds", "File descriptors that may be open", None, most)?;
        }
        Ok(())
    }
}

/// When the process started, as time since 1970.
fn started() -> procfs::ProcResult<Duration> {
    Ok(Duration::from_secs(procfs::boot_time_secs()?) + ticks(Process::myself()?.stat()?.starttime))
}

/// The time that the kernel counts in ticks.
fn ticks(count: u64) -> Duration {
    let each = procfs::ticks_per_second();
    Duration::from_secs(count / each) + Duration::from_nanos(count % each * 1_000_000_000 / each)
}

#[cfg(test)]
mod tests {
    use std::{
        fs::File,
        thread,
        time::{Instant, SystemTime},
    };

    use prometheus_client::encoding::text::encode;

    use super::*;

    fn shown() -> String {
        let mut registry = Registry::default();
        register(&mut registry);
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        text
    }

    fn value(text: &str, name: &str) -> f64 {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("{name} is not in\n{text}")).parse().unwrap()
    }

    #[test]
    fn process_metrics_have_the_standard_names_and_units() {
        let text = shown();
        let since_1970 = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs_f64();
        let age = since_1970 - value(&text, "process_start_time_seconds");
        assert!((-2.0..3600.0).contains(&age), "{age}\n{text}");
        let (resident, mapped) =
            (value(&text, "process_resident_memory_bytes"), value(&text, "process_virtual_memory_bytes"));
        assert!(1e6 < resident && resident < mapped, "{text}");
        assert!(value(&text, "process_max_fds") > value(&text, "process_open_fds"), "{text}");
    }

    #[test]
    fn processor_time_is_in_seconds() {
        let cores = u32::try_from(thread::available_parallelism().unwrap().get()).unwrap();
        let begin = Instant::now();
        let before = value(&shown(), "process_cpu_seconds_total");
        while begin.elapsed() < Duration::from_millis(300) {}
        let used = value(&shown(), "process_cpu_seconds_total") - before;
        // Other tests use some, too; on a busy machine this one gets less than a core.
        let most = (begin.elapsed() * cores).as_secs_f64() + 0.1;
        assert!((0.02..most).contains(&used), "{used} of {most}");
    }

    #[test]
    fn open_files_are_counted() {
        let before = value(&shown(), "process_open_fds");
        let files: Vec<_> = (0..200).map(|_| File::open("/proc/self/stat").unwrap()).collect();
        let during = value(&shown(), "process_open_fds");
        // Other tests open and close some meanwhile.
        assert!(during > before + 100.0, "{before}, with {} more {during}", files.len());
    }

    #[test]
    fn ticks_are_time() {
        let each = procfs::ticks_per_second();
        assert_eq!(ticks(each * 90 + each / 2), Duration::from_millis(90_500));
        assert_eq!(ticks(0), Duration::ZERO);
    }
}
