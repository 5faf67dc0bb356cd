import Glibc
import HostSystem
import Testing

@Suite struct FileDescriptorTests {
    @Test func `HI-D10: whatever number a file system answers fstat with is thrown`() {
        // A file of a user's own file system may answer with EBADF or EFAULT.
        let broken = FileDescriptor(owning: -1)
        #expect(throws: SystemError.self) { _ = try broken.status() }
    }

    @Test func `a memory file says what it is`() throws {
        let file = try MemoryFile(name: "status", size: 8192)
        let status = try file.descriptor.status()
        #expect(status.size == 8192)
        #expect(status.isRegular && status.isReadWrite && status.isSealedAgainstShrinking)
        #expect(!file.descriptor.isEventFD)
    }

    @Test func `HI-I12: nobody who is given a memory file of ours can seal it any further`() throws
    {
        let file = try MemoryFile(name: "sealed", size: 4096)
        // linux/fcntl.h: F_ADD_SEALS with F_SEAL_FUTURE_WRITE, after which nobody can map the file
        // for writing any more, not even its owner.
        #expect(fcntl(file.descriptor.rawValue, 1033, 0x10) == -1)
        _ = try file.map()
    }
}
