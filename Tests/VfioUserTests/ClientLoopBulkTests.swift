import Testing
import Virtio

@testable import VfioUser

/// Q5: a long life of a served function beside the same function in process.
@Suite struct ClientLoopBulkTests {
    @Test func `VFU-S-40, VFU-S-43: 100000 accesses come out as they do in process`() throws {
        let served = try ServedFunction { _ in
            try VirtioPCIFunction(device: ReverseDevice())
        }
        let pair = try Lockstep(served.path, seed: 20_261_121)
        while pair.steps < 100_000 { try pair.step() }
        #expect(pair.steps == 100_000)
    }
}
