import ArgumentParser
import CSystemShims
import Glibc

/// The command line's root.
@main
struct VhostPCI: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "vhost-pci",
        abstract: "User-space virtio devices and drivers.",
        version: "vhost-pci 0.1.0-dev",
        subcommands: [
            RunCommand.self, DeviceCommand.self, MgmtCommand.self, VdevCommand.self,
            ServeCommand.self, ControlCommand.self, DoctorCommand.self, PeerCommand.self,
            BenchCommand.self,
        ]
    )

    /// Runs the command; exit status 0 done, 1 failed, 2 wrong usage, 3 refused for safety.
    static func main() {
        guard shim_open_standard_streams() == 0 else { Glibc.exit(1) }
        do {
            var command = try parseAsRoot()
            try command.run()
        } catch {
            let status = exitCode(for: error)
            let text = fullMessage(for: error)
            if status == .success {
                let problem = StepReporter.write(text + "\n", to: STDOUT_FILENO)
                Glibc.exit(problem == nil ? 0 : 1)
            }
            if !text.isEmpty { StepReporter.write(text + "\n", to: STDERR_FILENO) }
            Glibc.exit(status == .validationFailure ? 2 : status.rawValue)
        }
    }
}
