# SPDX-License-Identifier: Apache-2.0
# `cmake --install`: the programs, what they need at run time, and what shells want. From there they run without the source tree.
include(GNUInstallDirs)

install(TARGETS msb msb-machine msb-registry msb-server msb-vmm RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
# The names by which msb is called to mean one of its commands.
foreach(name msx msi)
  install(CODE "
    set(link \"\$ENV{DESTDIR}\${CMAKE_INSTALL_PREFIX}/${CMAKE_INSTALL_BINDIR}/${name}\")
    file(CREATE_LINK msb \"\${link}\" SYMBOLIC)
    message(STATUS \"Installing: \${link}\")")
endforeach()

# They are built by guestkernel/build and initramfs/build, and are found beside bin (launcher/paths.cpp).
install(FILES ${CMAKE_SOURCE_DIR}/build/guestkernel/vmlinux ${CMAKE_SOURCE_DIR}/build/initramfs/initramfs.cpio
  DESTINATION ${CMAKE_INSTALL_DATADIR}/microsandbox)
install(FILES ${CMAKE_SOURCE_DIR}/LICENSE DESTINATION ${CMAKE_INSTALL_DATADIR}/doc/microsandbox)
install(DIRECTORY ${CMAKE_SOURCE_DIR}/docs/ DESTINATION ${CMAKE_INSTALL_DATADIR}/doc/microsandbox)

foreach(completion
    bash:bash-completion/completions/msb
    zsh:zsh/site-functions/_msb
    fish:fish/vendor_completions.d/msb.fish)
  string(REPLACE ":" ";" completion ${completion})
  list(GET completion 0 shell)
  list(GET completion 1 path)
  install(CODE "
    set(script \"\$ENV{DESTDIR}\${CMAKE_INSTALL_PREFIX}/${CMAKE_INSTALL_DATADIR}/${path}\")
    cmake_path(GET script PARENT_PATH directory)
    file(MAKE_DIRECTORY \"\${directory}\")
    execute_process(COMMAND \"${CMAKE_RUNTIME_OUTPUT_DIRECTORY}/msb\" completion ${shell}
      OUTPUT_FILE \"\${script}\" COMMAND_ERROR_IS_FATAL ANY)
    message(STATUS \"Installing: \${script}\")")
endforeach()
