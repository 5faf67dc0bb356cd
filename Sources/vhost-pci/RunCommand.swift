import ArgumentParser
import HostSystem
import PCI

/// `vhost-pci run`: the main job.
struct RunCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "run",
        abstract: "Create vhost-pci-net devices, attach peers and move their packets.",
        discussion: """
            Brings up a management device, creates one vhost-pci-net device for each peer through \
            its admin queue, and works on the peers' rings with pinned polling threads. Without \
            arguments it starts two peers of its own, lets them talk through the switch for five \
            seconds and verifies every packet.
            """
    )

    @OptionGroup var options: RunOptions

    func run() throws {
        let reporter = StepReporter(json: options.json)
        let report: RunReport
        do {
            try Self.checkDevice(options.device)
            report = try RunSession(options, reporter).run()
        } catch let error as ExitCode {
            throw error
        } catch let error as RunError {
            reporter.problem("\(error)")
            throw ExitCode(error.isUsage ? 2 : 1)
        } catch {
            reporter.problem("\(error)")
            throw ExitCode(1)
        }
        do {
            let lines = options.json ? [try report.json()] : FinalTable(report: report).lines()
            for line in lines { try reporter.result(line) }
        } catch {
            reporter.problem("\(error)")
            throw ExitCode(1)
        }
        if report.verdict == .failed { throw ExitCode(1) }
    }

    /// Refuses, by name, targets that this version cannot drive.
    static func checkDevice(_ target: String) throws {
        if target == "emulated" { return }
        if target.hasPrefix("vfio-user:") || target.hasPrefix("vhost-user:") {
            throw RunError.notSupported("--device \(target): only `emulated` can be driven yet")
        }
        guard let address = PCIAddress(target) else {
            throw RunError.target(target)
        }
        guard let record = try PCIBus.identify(address) else {
            throw RunError.noFunction(target)
        }
        let driver = record.driver.map { "driver \($0)" } ?? "no driver"
        throw RunError.notSupported(
            "--device \(target) (\(record.name), \(driver)): only `emulated` can be driven yet"
        )
    }
}

/// Why a run could not start or go on.
enum RunError: Error, CustomStringConvertible {
    case notSupported(String)
    case target(String)
    case noFunction(String)
    case peerProcess(String)

    /// The command line was wrong, rather than the machine or a peer.
    var isUsage: Bool {
        if case .target = self { return true }
        return false
    }

    var description: String {
        switch self {
        case .notSupported(let what): "not supported: \(what)"
        case .target(let target):
            "pci/address: \(target) is no target; use `emulated` or an address such as 0000:03:00.0"
        case .noFunction(let address):
            "pci/address: there is no PCI function \(address); see `lspci -D`"
        case .peerProcess(let what): "peer/process: \(what)"
        }
    }
}
