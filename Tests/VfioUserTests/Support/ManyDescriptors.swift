import Glibc
import HostSystem

/// Sends bytes with more descriptors than our own sockets ever send.
func sendMany(_ bytes: [UInt8], _ descriptors: [Int32], over socket: UnixSocket) -> Int {
    // A control message as the kernel reads it: length, level SOL_SOCKET, type SCM_RIGHTS, numbers.
    var control = [UInt8](repeating: 0, count: 16 + 4 * descriptors.count)
    unsafe control.withUnsafeMutableBytes { raw in
        unsafe raw.storeBytes(of: UInt(16 + 4 * descriptors.count), as: UInt.self)
        unsafe raw.storeBytes(of: Int32(1), toByteOffset: 8, as: Int32.self)
        unsafe raw.storeBytes(of: Int32(1), toByteOffset: 12, as: Int32.self)
        for (index, number) in descriptors.enumerated() {
            unsafe raw.storeBytes(of: number, toByteOffset: 16 + 4 * index, as: Int32.self)
        }
    }
    var payload = bytes
    return unsafe control.withUnsafeMutableBytes { control in
        unsafe payload.withUnsafeMutableBytes { payload in
            var vector = unsafe iovec(iov_base: payload.baseAddress, iov_len: payload.count)
            return unsafe withUnsafeMutablePointer(to: &vector) { vector in
                var header = unsafe msghdr()
                unsafe header.msg_iov = vector
                unsafe header.msg_iovlen = 1
                unsafe header.msg_control = control.baseAddress
                unsafe header.msg_controllen = control.count
                return unsafe sendmsg(socket.descriptor.rawValue, &header, 0)
            }
        }
    }
}
