import ArgumentParser
import DeviceCheck
import Testing

@testable import vhost_pci

@Suite struct DeviceCheckCommandTests {
    @Test func `the emulated device keeps every rule that concerns it`() throws {
        let function = try DeviceTarget.emulated.open(unsafeNoIOMMU: false)
        let report = DeviceCheckReport(target: "emulated", results: try DeviceCheck.run(function))
        for result in report.results where result.verdict == .fail {
            Issue.record("\(DeviceCheckReport.line(result))")
        }
        #expect(report.results.count >= 60)
        #expect(report.verdict == .ok)
        #expect(report.passed + report.notApplicable == report.results.count)
    }

    @Test func `one failure makes the verdict`() {
        let good = CheckResult("DEV-P-01", "vendor id", .pass, "0x1af4")
        let bad = CheckResult("DEV-P-02", "device id", .fail, "0x2000")
        let none = CheckResult("DEV-P-04", "subsystem", .notApplicable, "transitional")
        #expect(DeviceCheckReport(target: "x", results: [good, none]).verdict == .ok)
        #expect(DeviceCheckReport(target: "x", results: [good, bad]).verdict == .failed)
        let report = DeviceCheckReport(target: "x", results: [good, bad, none])
        #expect(report.summary == "x: 3 rules, 1 passed, 1 failed, 1 not applicable")
    }

    @Test func `a line has id, verdict, subject and evidence`() {
        let bad = CheckResult("DEV-P-02", "device id", .fail, "device 0x2000")
        #expect(DeviceCheckReport.line(bad) == "DEV-P-02  fail  device id: device 0x2000")
    }

    @Test(arguments: ["", "DEV", "DEV-Z", "HI-A7", "dev-p"])
    func `--only of no rule is wrong usage`(_ prefix: String) {
        #expect(throws: (any Error).self) {
            try DeviceCheckCommand.parse(["emulated", "--only", prefix])
        }
    }

    @Test func `--only takes families and single rules`() throws {
        let command = try DeviceCheckCommand.parse([
            "emulated", "--only", "DEV-P", "--only", "DEV-Q-04",
        ])
        #expect(command.only == ["DEV-P", "DEV-Q-04"])
    }
}
