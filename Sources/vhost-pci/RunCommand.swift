import ArgumentParser

/// `vhost-pci run`: the main job.
struct RunCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "run",
        abstract: "Create vhost-pci-net devices, attach peers and move their packets.",
        discussion: """
            Brings up a management device, creates one vhost-pci-net device for each peer through \
            its admin queue, and works on the peers' rings with pinned polling threads. A PCI \
            device that is bound to vfio-pci or uio_pci_generic is a port like a peer. Without \
            arguments it starts two peers of its own, lets them talk through the switch for five \
            seconds and verifies every packet.
            """
    )

    @OptionGroup var options: RunOptions

    func run() throws {
        let reporter = StepReporter(json: options.json)
        let report: RunReport
        do {
            let isUnsafe = options.opening.unsafeNoIOMMU
            report = try RunSession(options, reporter) { target in
                try target.open(unsafeNoIOMMU: isUnsafe)
            }.run()
        } catch let error as ExitCode {
            throw error
        } catch {
            let failure = CommandFailure(error)
            reporter.problem(failure.line)
            throw ExitCode(failure.exitStatus)
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
}

/// Why a run could not start or go on.
enum RunError: Error, CustomStringConvertible {
    case notSupported(String)
    case peerProcess(String)

    var description: String {
        switch self {
        case .notSupported(let what): "not supported: \(what)"
        case .peerProcess(let what): "peer/process: \(what)"
        }
    }
}
