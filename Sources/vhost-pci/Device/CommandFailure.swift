import ArgumentParser
import FoundationEssentials
import Glibc
import HostSystem
import PCI
import Virtio

/// Why a command did not do what it was asked to: one line for people, one object for programs.
struct CommandFailure: Encodable {
    /// The refusal in parts.
    struct Reason: Encodable {
        var id: String?
        var detail: String
        var remedy: String?
    }

    var schema = "vhost-pci.error/1"
    var error: Reason
    var exitStatus: Int32

    enum CodingKeys: String, CodingKey {
        case schema, error
        case exitStatus = "exit_status"
    }

    /// Refusals that guard what others use (exit status 3); all others are failures (1).
    private static let safety: Set<String> = [
        "bind/in-use", "reset/in-use", "vfio/group", "vfio/busy", "uio/busy", "iommu/unsafe",
        "iommu/noiommu",
    ]

    /// Refusals of what was typed (exit status 2).
    private static let usage: Set<String> = ["bind/driver"]

    init(_ error: any Error) {
        let refusal: HostRefusal?
        switch error {
        case let error as HostRefusal: refusal = error
        case PCIError.refused(let inner): refusal = inner
        case VirtioError.pci(.refused(let inner)): refusal = inner
        default: refusal = nil
        }
        guard let refusal else {
            self.error = Self.reason(error)
            exitStatus = 1
            return
        }
        self.error = Reason(
            id: refusal.id,
            detail: refusal.detail,
            remedy: refusal.remedy.isEmpty ? nil : refusal.remedy
        )
        exitStatus = Self.safety.contains(refusal.id) ? 3 : Self.usage.contains(refusal.id) ? 2 : 1
    }

    /// The errors of our own modules begin with their id.
    private static func reason(_ error: any Error) -> Reason {
        let text = "\(error)"
        let parts = text.split(separator: ":", maxSplits: 1)
        guard error is VirtioError || error is PCIError, parts.count == 2,
            parts[1].hasPrefix(" ")
        else { return Reason(detail: text) }
        let id = String(parts[0])
        guard id == "not supported" || id.contains("/") && !id.contains("'") else {
            return Reason(detail: text)
        }
        return Reason(id: id, detail: String(parts[1].dropFirst()))
    }

    /// One line.
    var line: String {
        [error.id.map { "\($0): \(error.detail)" } ?? error.detail, error.remedy]
            .compactMap { $0 }.joined(separator: "; ")
    }

    /// Runs a command's work; a failure is told on standard error and, for programs, as an object on
    /// standard output, and becomes the exit status.
    static func reporting(json: Bool, _ work: () throws -> Void) throws {
        do {
            try work()
        } catch let status as ExitCode {
            throw status
        } catch {
            let failure = CommandFailure(error)
            StepReporter.write("vhost-pci: \(failure.line)\n", to: STDERR_FILENO)
            if json { try print(failure) }
            throw ExitCode(failure.exitStatus)
        }
    }

    /// Prints an object with its keys in alphabetical order.
    static func print(_ object: some Encodable) throws {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
        let text = String(decoding: try encoder.encode(object), as: UTF8.self)
        try StepReporter.writeResult(text + "\n")
    }

    /// Prints lines on standard output.
    static func print(lines: [String]) throws {
        try StepReporter.writeResult(lines.map { $0 + "\n" }.joined())
    }
}
