import ArgumentParser
import Glibc
import HostSystem
import PCI
import Testing
import Virtio

@testable import vhost_pci

@Suite struct CommandFailureTests {
    @Test(arguments: [
        ("bind/in-use", 3), ("reset/in-use", 3), ("vfio/group", 3), ("vfio/busy", 3),
        ("iommu/noiommu", 3), ("bind/driver", 2), ("pci/address", 1), ("vfio/module", 1),
        ("iommu/off", 1), ("never heard of", 1),
    ])
    func `a refusal has the exit status of its kind, however deep it lies`(row: (String, Int32)) {
        let refusal = HostRefusal(row.0, "what was found", remedy: "what cures it")
        let errors: [any Error] = [
            refusal, PCIError.refused(refusal), VirtioError.pci(.refused(refusal)),
        ]
        for error in errors {
            let failure = CommandFailure(error)
            #expect(failure.exitStatus == row.1)
            #expect(failure.line == "\(row.0): what was found; what cures it")
            #expect(failure.error.id == row.0 && failure.error.remedy == "what cures it")
        }
    }

    @Test func `an error of the system has no id, and status 1`() {
        let failure = CommandFailure(SystemError("open /dev/x", .accessDenied))
        #expect(failure.exitStatus == 1 && failure.error.id == nil)
        #expect(failure.line.hasPrefix("open /dev/x: Permission denied"))
    }

    @Test func `an exit status passes through, all else becomes one`() {
        #expect(throws: ExitCode(7)) {
            try CommandFailure.reporting(json: false) { throw ExitCode(7) }
        }
        #expect(throws: ExitCode(3)) {
            try CommandFailure.reporting(json: false) { throw HostRefusal("bind/in-use", "test") }
        }
        #expect(throws: Never.self) { try CommandFailure.reporting(json: true) {} }
    }

    @Test func `HI-J27: a result that finds no room is an error`() throws {
        let full = unsafe open("/dev/full", O_WRONLY | O_CLOEXEC)
        try #require(full >= 0)
        defer { close(full) }
        #expect(throws: SystemError.self) { try StepReporter.writeResult("x\n", to: full) }
    }
}
