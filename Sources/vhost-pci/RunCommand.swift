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
        } catch {
            reporter.problem("\(error)")
            throw ExitCode(1)
        }
        if options.json {
            reporter.result(try report.json())
        } else {
            for line in FinalTable(report: report).lines() { reporter.result(line) }
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
        guard let identity = try PCIBus.identify(address) else {
            throw RunError.noFunction(target)
        }
        throw RunError.notSupported(
            "--device \(target) (\(identity)): only `emulated` can be driven yet"
        )
    }
}

/// Why a run could not start or go on.
enum RunError: Error, CustomStringConvertible {
    case notSupported(String)
    case target(String)
    case noFunction(String)
    case peerProcess(String)
    case uplink(String)

    var description: String {
        switch self {
        case .notSupported(let what): "not supported: \(what)"
        case .target(let target):
            "pci/address: \(target) is no target; use `emulated` or an address such as 0000:03:00.0"
        case .noFunction(let address):
            "pci/address: there is no PCI function \(address); see `lspci -D`"
        case .peerProcess(let what): "peer/process: \(what)"
        case .uplink(let what): "uplink: \(what)"
        }
    }
}
